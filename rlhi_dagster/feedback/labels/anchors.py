"""Plain little follow-ups that show the head what each label means where labelled logs have next to nothing.

What belongs here: a few made-up exchanges per label of the codebook. What does not: anything taken from a log, and any score: anchors
are only trained on, beside the labelled rows, and never part of a fold or test that is scored. (In a thousand labelled follow-ups of
real users there were six thanks, so that without anchors a plain "thanks" is called whatever short message is most frequent.)
"""

from __future__ import annotations

import polars as pl

from rlhi_dagster.feedback import Feedback

WEIGHT = 0.5
"""Weight of an anchor in training, in labelled rows."""

_EXCHANGES: tuple[tuple[str, str], ...] = (
    ("How high is Mont Blanc?", "Mont Blanc is 4,806 metres high. It is the highest mountain of the Alps."),
    (
        "Write to my landlord that the heating is broken.",
        "Dear Ms Reed,\n\nthe heating in flat 12 has been out of order since Monday.\n\nYours, A. Hall",
    ),
    (
        "Which board games are good for two?",
        "1. Chess\n2. Carcassonne\n3. Patchwork\nAll three are quick to learn and play well with two.",
    ),
)

_FOLLOW_UPS: dict[Feedback, tuple[str, ...]] = {
    Feedback.REATTEMPT_WITH_FEEDBACK: (
        "That's too long, cut it down.",
        "too short",
        "a bit longer please",
        "More detail, please.",
        "Can you go into more detail?",
        "Say it in one sentence.",
        "Put it in a table.",
        "Could you give me that as a list?",
        "No list please, just normal text.",
        "write it as one paragraph",
        "It sounds too stiff.",
        "Less casual, please.",
        "Add some emojis.",
        "in German please",
        "Ahora en francés, por favor.",
        "demasiado corto",
        "That's not right, check the number.",
        "This is wrong.",
        "No, I meant the other one.",
        "I asked for something else: only the ones for children.",
        "you forgot to mention the price",
        "simpler words please",
    ),
    Feedback.REATTEMPT_WITHOUT_FEEDBACK: ("once again", "Try once more.", "another", "repeat please", "otra vez", "give me another one"),
    Feedback.CONTINUATION: (
        "keep going",
        "next",
        "Why is that?",
        "And how long does it take?",
        "And what does it cost?",
        "What should I do next?",
        "Which one is the best of them?",
        "where can I find it?",
        "What does the second point mean?",
        "Does that also work in winter?",
        "Why is it so?",
        "y cuánto cuesta?",
    ),
    Feedback.NEW_REQUEST: (
        "How do I renew a passport?",
        "What is the boiling point of ethanol?",
        "Who painted the Mona Lisa?",
        "What should I wear to a wedding?",
        "How do magnets work?",
        "Give me a name for a parrot.",
        "¿Qué hora es en Tokio?",
        "When does school start in Japan?",
    ),
    Feedback.POSITIVE: (
        "thank you",
        "Thanks a lot!",
        "thx",
        "Great answer, thanks.",
        "perfect",
        "That's exactly what I needed.",
        "Nice, that works.",
        "very helpful, thank you so much",
        "awesome!",
        "¡Muchas gracias!",
    ),
    Feedback.OTHER: ("hi", "hahaha", "ok", "hmm", "...", "how are you?", "asdf", "you are useless"),
}


def anchors() -> pl.DataFrame:
    """Every follow-up after every exchange, and each request sent again: follow_up, previous_prompt, previous_reply, label."""
    rows = [
        (follow_up, prompt, reply, label.value)
        for label, follow_ups in _FOLLOW_UPS.items()
        for follow_up in follow_ups
        for prompt, reply in _EXCHANGES
    ]
    rows += [(prompt, prompt, reply, Feedback.REATTEMPT_WITHOUT_FEEDBACK.value) for prompt, reply in _EXCHANGES]
    return pl.DataFrame(rows, schema=["follow_up", "previous_prompt", "previous_reply", "label"], orient="row")
