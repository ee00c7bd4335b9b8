"""How the village's users speak of replies: at least fifteen wordings an aspect, plain and indirect, and what else they say.

Pure vocabulary, written without looking at what the lexicon (``feedback.aspects``) hears: which of it is heard is measured in
``docs/concepts/village.md``. Who says what is in ``dialogue.py``.
"""

from __future__ import annotations

from rlhi_dagster.feedback import Aspect

PLAIN: dict[tuple[Aspect, str], tuple[str, ...]] = {
    (Aspect.LENGTH, "short"): (
        *("Shorter, please.", "Too long. Just the main point.", "Can you keep it brief?", "Make that much shorter.", "Be more concise."),
        *("Please answer in two sentences at most.", "That is too wordy for me.", "Cut it down to 40 words or less."),
    ),
    (Aspect.LENGTH, "long"): (
        *("Can you give me more detail?", "That is too short. Please elaborate.", "I want a longer answer.", "Explain it in more depth."),
        *("Could you expand on that?", "More details, please."),
    ),
    (Aspect.FORMAT, "bullets"): (
        *(
            "Use bullet points.",
            "Can I have that as bullet points?",
            "Please put it in a bulleted list.",
            "Bullets instead of text, please.",
        ),
        *("Write it as bullet points, not as a paragraph.",),
    ),
    (Aspect.FORMAT, "numbered"): (
        *("Please give me numbered steps.", "Number the steps.", "I would like a numbered list.", "As a numbered list, please."),
        *("Can you number them?",),
    ),
    (Aspect.FORMAT, "prose"): (
        *("No lists, please.", "Write it as a normal paragraph.", "Without bullet points, please.", "Just plain text, one paragraph."),
        *("Please don't use a list for that.",),
    ),
    (Aspect.EXAMPLES, "with"): (
        *("Can you give me an example?", "Add an example, please.", "Please include a concrete example.", "I need an example to get it."),
        *("Show me an example of that.",),
    ),
    (Aspect.EXAMPLES, "without"): (
        *("No examples, please.", "Leave out the examples.", "Without the examples, please.", "I don't need examples."),
        *("Please skip the examples.",),
    ),
    (Aspect.EXCLAMATION, "with"): (
        *("Use some exclamation marks!", "Make it livelier!", "A bit more enthusiasm, please!", "Can you sound more excited?"),
        *("Be more enthusiastic!",),
    ),
    (Aspect.EXCLAMATION, "without"): (
        *("No exclamation marks, please.", "Please stop using exclamation marks.", "Less excitement, please.", "Don't shout at me."),
        *("Write it without exclamation marks.", "Can you be less enthusiastic?"),
    ),
    (Aspect.CLOSING, "question"): (
        *(
            "End with a question for me.",
            "Ask me something back at the end.",
            "Please finish with a question.",
            "Ask me a question at the end.",
        ),
        *("Could you close with a question?",),
    ),
    (Aspect.CLOSING, "statement"): (
        *("Don't end with a question.", "Please don't ask me questions back.", "No question at the end, please.", "Stop asking me things."),
        *("Drop the closing question.",),
    ),
    (Aspect.OPENING, "direct"): (
        *("Start with the answer.", "Skip the introduction.", "No preamble, please.", "Begin with the main point.", "Leave out the intro."),
        *("Answer first, then the rest.", "Drop the pleasantries.", "Lead with the answer, please."),
    ),
}
"""What users say plainly, by the value that they want."""

INDIRECT: dict[tuple[Aspect, str], tuple[str, ...]] = {
    (Aspect.LENGTH, "short"): (
        *("I lost track halfway, that is a lot of text.", "I only have a minute.", "You could have said that in one sentence."),
        *("My eyes glazed over after the second line.", "That is more than I can read on my phone."),
    ),
    (Aspect.LENGTH, "long"): (
        *("I am none the wiser, there must be more to it.", "That hardly scratches the surface.", "Is that all you can say about it?"),
        *("I expected a bit more than that.",),
    ),
    (Aspect.FORMAT, "bullets"): (
        *("I can't pick out the single points in that block of text.", "It would help to see the points one below the other."),
        *("I want to tick things off, one line each.",),
    ),
    (Aspect.FORMAT, "numbered"): (
        *("In which order do I do all that?", "I want to be able to say where I am: step three of five.", "First what, second what?"),
    ),
    (Aspect.FORMAT, "prose"): (
        *("This reads like a shopping list.", "Talk to me in whole sentences, as you would over dinner.", "It is all chopped up."),
    ),
    (Aspect.EXAMPLES, "with"): (*("That is too abstract for me.", "What would that look like in my kitchen, say?", "I can't picture it."),),
    (Aspect.EXAMPLES, "without"): (*("I know what it looks like in practice, just tell me the rule.", "The side stories distract me."),),
    (Aspect.EXCLAMATION, "with"): (
        *("You sound bored.", "That reads like an instruction manual. Where is the joy?", "Come on, cheer me up a little!"),
    ),
    (Aspect.EXCLAMATION, "without"): (
        *("Why are you so excited?", "You sound like an advertisement.", "Calm down, it is only a question."),
    ),
    (Aspect.CLOSING, "question"): (
        *("You never want to know anything about me.", "It feels like a lecture, I would rather have a conversation."),
        *("And now? You leave me hanging there.",),
    ),
    (Aspect.CLOSING, "statement"): (*("I asked you, not the other way round.", "I came here for answers.", "Why do you want to know?"),),
    (Aspect.OPENING, "direct"): (
        *("Why do I have to read three lines before you say anything?", "I know what I asked, you need not repeat it."),
        *("Where is the answer in there?", "Thanks for the warm words, but what is it?", "You beat about the bush first."),
        *("The first sentence says nothing.", "Get on with it."),
    ),
}
"""What users say when they mean it and do not name it."""

CONTENT = (
    "I have only half an hour a week for that.",
    "That is not right for somebody who lives in a small flat.",
    "You left out what it costs.",
    "I meant for two people, not for one.",
    "That assumes I have tools, and I have none.",
    "Please say something about safety, too.",
)
"""Feedback on what a reply says, and not on how."""

THANKS = ("Thanks!", "Perfect, thank you.", "Great, that helps.", "Nice, that is what I needed.", "Thank you, very clear.")
AGAIN = ("Try again.", "Another one, please.", "Can you do that again?", "Once more.")
CONTINUE = ("What else?", "And then?", "Go on.", "What comes after that?", "Is there anything else to know?")
OTHER = ("lol", "hmm", "ok...", "you are funny", "brb")
WELCOME = "You are welcome!"
"""What the assistant says to thanks and small talk; no model is asked."""

IN_REQUEST: dict[tuple[Aspect, str], tuple[str, ...]] = {
    (Aspect.LENGTH, "short"): ("Keep it short.", "In two sentences, please."),
    (Aspect.LENGTH, "long"): ("Give me a long answer.", "In detail, please."),
    (Aspect.FORMAT, "bullets"): ("Use bullet points.", "As a bulleted list, please."),
    (Aspect.FORMAT, "numbered"): ("Use a numbered list.", "In numbered steps, please."),
    (Aspect.FORMAT, "prose"): ("No lists, please.", "In one paragraph, please."),
    (Aspect.EXAMPLES, "with"): ("Give me an example, too.", "With an example, please."),
    (Aspect.EXAMPLES, "without"): ("Without examples, please.", "No examples."),
    (Aspect.EXCLAMATION, "with"): ("Make it lively!", "Use exclamation marks!"),
    (Aspect.EXCLAMATION, "without"): ("No exclamation marks, please.", "Without exclamation marks."),
    (Aspect.CLOSING, "question"): ("End with a question for me.", "Ask me something at the end."),
    (Aspect.CLOSING, "statement"): ("Don't ask me questions back.", "Don't end with a question."),
    (Aspect.OPENING, "direct"): ("Start with the answer.", "Skip the introduction."),
}
"""How users state a wish together with the request."""
