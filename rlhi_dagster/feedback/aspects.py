r"""Style requests in a message: which aspect of an answer a user wants how, and the words that say so.

What belongs here: the lexicon, as data, and its reader. What does not: whether a message is feedback at all (``classifier``)
and what is remembered of it (``personas``).

The lexicon is English and Spanish, with the commonest wishes in Chinese, French, German, Portuguese and Russian. A phrase that undoes another contains it ("not so long", "no lists", "less formal"), and
where two matches overlap the longer one counts; of several requests on one aspect the last one counts. Where a message speaks of data or
code, a list or a table is most often what the code works on: there only what cannot be meant so counts ("bullet points").

Long messages are mostly pasted material. Above ``MAX_CHARACTERS`` only the first sentence and the last two are read, each up
to ``MAX_SENTENCE`` characters: that is where people put their instructions. Fenced code and quoted text are never read.
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from rlhi_dagster.feedback import Aspect

MAX_CHARACTERS = 400
MAX_SENTENCE = 240
MAX_PASTED = 8_000
"""Of a pasted text only this many characters at either end are looked at."""
_KEPT_WINDOWS = 1 << 14
"""Parts of texts whose wishes are kept in mind, since several steps of a run read the same messages: some megabytes."""


@dataclass(frozen=True, slots=True)
class AspectRequest:
    """A wish about one aspect.

    Attributes:
        aspect: What the wish is about.
        value: What is wanted, one of the values of ``LINES`` for the aspect.
        line: The wish as a persona line.
        span: The words of the message that say it, verbatim.
    """

    aspect: Aspect
    value: str
    line: str
    span: str


LANGUAGES: dict[str, str] = {
    "English": r"english|ingl[eé]s",
    "Spanish": r"spanish|castellano|espa[nñ]ol",
    "French": r"french|fran[cç]ais|franc[eé]s",
    "German": r"german|deutsch|alem[aá]n",
    "Italian": r"italian|italiano",
    "Portuguese": r"(?:brazilian )?portuguese|portugu[eê]s|portugu[eé]s",
    "Russian": r"russian|ruso|русском",
    "Chinese": r"(?:simplified |traditional )?chinese|mandarin|chino|中文",
    "Japanese": r"japanese|japon[eé]s",
    "Korean": r"korean|coreano",
    "Arabic": r"arabic|[aá]rabe",
    "Hindi": r"hindi",
    "Turkish": r"turkish|turco",
    "Polish": r"polish|polaco",
    "Dutch": r"dutch|holand[eé]s",
    "Ukrainian": r"ukrainian|ucraniano",
    "Indonesian": r"indonesian|bahasa indonesia",
    "Vietnamese": r"vietnamese",
}

PROGRAMMING_LANGUAGES: dict[str, str] = {
    "Python": r"python ?[23]?(?:\.\d+)?",
    "JavaScript": r"java ?script|js|node ?js|node\.js",
    "TypeScript": r"type ?script",
    "Java": r"java(?! ?script)",
    "C++": r"c\+\+|cpp",
    "C#": r"c#|c ?sharp",
    "Go": r"golang",
    "Rust": r"rust",
    "PHP": r"php",
    "Ruby": r"ruby",
    "Kotlin": r"kotlin",
    "Swift": r"swift",
    "SQL": r"sql",
    "Bash": r"bash",
    "MATLAB": r"matlab",
    "VBA": r"vba",
}

LINES: dict[Aspect, dict[str, str]] = {
    Aspect.LENGTH: {"short": "Prefers short answers.", "long": "Prefers long, detailed answers."},
    Aspect.FORMAT: {
        "bullets": "Prefers bullet points.",
        "numbered": "Prefers numbered lists.",
        "prose": "Prefers plain paragraphs without lists.",
        "table": "Prefers tables.",
    },
    Aspect.TONE: {"friendly": "Prefers a friendly tone.", "formal": "Prefers a formal tone."},
    Aspect.LANGUAGE: {name.lower(): f"Prefers answers in {name}." for name in LANGUAGES},
    Aspect.SIMPLICITY: {"simple": "Prefers simple words.", "technical": "Prefers technical depth."},
    Aspect.CODE: {
        "complete": "Prefers complete code.",
        "commented": "Prefers code with comments.",
        "bare": "Prefers code without comments.",
        "only": "Prefers code without explanations.",
        "none": "Prefers answers without code.",
        "plain": "Prefers code without external libraries.",
    },
    Aspect.EMOJI: {"with": "Prefers answers with emojis.", "without": "Prefers answers without emojis."},
    Aspect.EXAMPLES: {"with": "Prefers answers with examples.", "without": "Prefers answers without examples."},
    Aspect.EXCLAMATION: {"with": "Prefers lively answers with exclamation marks.", "without": "Prefers answers without exclamation marks."},
    Aspect.CLOSING: {
        "question": "Prefers answers that end with a question.",
        "statement": "Prefers answers that do not end with a question.",
    },
    Aspect.OPENING: {"direct": "Prefers answers that begin with the point, without an introduction."},
    Aspect.PROGRAMMING_LANGUAGE: {name.lower(): f"Prefers code in {name}." for name in PROGRAMMING_LANGUAGES},
}

# Building blocks. A gap is at most a few words, so that a cue and its object stay in one clause.
_NO = r"(?:no(?: more)?|not?|without(?: any| the)?|stop using|stop with|avoid|skip|drop|lose|remove|delete|get rid of|don'?t (?:use|want|need|give me|write|make|do)|dont (?:use|want|need)|do not use|instead of|rather than|(?:less|fewer)(?: of)?|too many|sin|nada de|menos|demasiad[oa]s|no (?:uses|quiero|pongas|me des)|quita|evita|deja de usar|en (?:vez|lugar) de)"
_DET = r"(?:\s+(?:the|any|all|these|those|this|that|so many|so much|using|a|an|las?|los|el|tant[oa]s|un[oa]?s?|usar|de|with|in))*\s+"
_TOO = r"(?:(?:(?:not|isn'?t|aren'?t|don'?t be)\s+)?(?:too|so|overly|way too|a bit too|a little too)|(?:not|isn'?t|aren'?t|don'?t be)\s+(?:very|that|as|all that))\s+"
_TOO_ES = r"(?:(?:no\s+(?:seas\s+)?)?(?:demasiado|tan|muy))\s+"
_MAKE = r"(?:make|keep|want|need|prefer|write|do|give me|have|be|answer|reply|respond|try)(?:\s+(?:it|this|that|them|me|your|my|the|an?|to|be|get|something|answers?|repl(?:y|ies)|responses?|sentences?|paragraphs?|poem|story|text|email|letter|in)){0,4}\s+(?:(?:a (?:bit|little|lil)|much|more|really|very|nice and|slightly|even|way|fairly)\s+)*"
_MAKE_ES = r"(?:haz(?:lo|la|me(?:lo|la)?)|quiero|prefiero|s[eé]|escr[ií]be(?:lo|la|me(?:lo)?)?|responde|contesta|d[aá](?:me|melo)|ponlo|que sea|hazlo)\s+(?:(?:un poco|un poquito|mucho|m[aá]s|bastante|algo|respuestas?|de (?:forma|manera))\s+)*"
_END = r"(?=\s*(?:[.,;!?)\n]|$|please|pls|and|but|or|instead|this time|next time|too|in|with|so|for|answers?|repl(?:y|ies)|responses?|versions?|por favor|esta vez|la pr[oó]xima|y\b|pero))"
_FIX = r"(?:make|keep|get|turn|have)\s+(?:it|this|that|them|these|your \w+|the (?:answer|reply|response|text|tone|language|style|wording|output|above|email|letter|message|post|essay|story|paragraph))\s+(?:(?:a (?:bit|little|lil)|much|more|really|very|nice and|slightly|even|way|fairly|sound|to be)\s+)*"
_MORE = r"(?:(?:much|a (?:bit|little|lil|lot)|even|far|slightly)\s+)*more(?:\s+(?:of an?|in|like))?\s+"
_LESS = r"(?:less|not so|not that|not too|not as|don'?t be so|stop being so|menos|no tan)\s+(?:of an?\s+)?"
_MORE_ES = r"(?:(?:mucho|un poco|un poquito|algo)\s+)?m[aá]s\s+"
_ANSWER = r"(?:answers?|repl(?:y|ies)|responses?|versions?)"

_SHORT = r"(?:short|brief|concise|succinct|terse|crisp|compact|condensed|to the point)"
_LONG = r"(?:long|lengthy|wordy|verbose|detailed|elaborate|thorough|exhaustive|in[- ]depth|extensive|comprehensive)"
_SHORT_ES = r"(?:cort[oa]s?|breves?|concis[oa]s?|resumid[oa]s?|escuet[oa]s?)"
_LONG_ES = r"(?:larg[oa]s?|extens[oa]s?|detallad[oa]s?|complet[oa]s?|elaborad[oa]s?)"
_FORMAL = r"(?:formal(?:ly)?|professional(?:ly)?|business[- ]?like|serious|polite|official|academic|formales)"
_FRIENDLY = r"(?:friendly|friendlier|casual(?:ly)?|informal(?:ly)?|warm(?:er|ly)?|conversational|relaxed|chatty|personal|personable|chill|laid[- ]back|playful|approachable)"
_FORMAL_ES = r"(?:formal(?:es|mente)?|profesional(?:es)?|seri[oa]s?|educad[oa]|cort[eé]s)"
_FRIENDLY_ES = r"(?:amistos[oa]s?|amigables?|cercan[oa]s?|c[aá]lid[oa]s?|informal(?:es)?|simp[aá]tic[oa]s?|relajad[oa]s?|coloquial(?:es)?|cariños[oa]s?|amables?)"
_PAIRED = r"(?:make|keep) (?:it|this|that|them) \w+(?:,| and|, and) (?:more )?"
_BULLETS = r"(?:bullets?(?:[- ]?points?)?(?:\s+(?:list|form(?:at)?|style))?|bulleted(?:\s+(?:list|form(?:at)?))?|bulletpoints?|lists?|viñetas?|listas?|puntos)"
_PROSE = r"(?:(?:(?:plain|normal|regular|flowing|simple|full|continuous|single|one|whole|short|coherent)\s+)*(?:prose|paragraphs?|para\b|running text|flowing text)|p[aá]rrafos?(?:\s+normal(?:es)?)?|prosa|texto (?:corrido|normal|seguido))"
_SIMPLE = r"(?:simple|simpler|plain|easy|easier|basic|layman'?s?|non[- ]technical|everyday)"
_TECHNICAL = r"(?:technical(?:ly)?|advanced|scientific|in[- ]depth technical|rigorous|t[eé]cnic[oa]s?|avanzad[oa]s?|cient[ií]fic[oa]s?)"
_EMOJIS = r"(?:emojis?|emoticons?|smileys?|emoticon(?:o|os|es))"
_COMMENTS = r"(?:comments?|comentarios?)"
_SHOUTS = r"exclamation (?:marks?|points?|signs?)"
_PLAIN_LIST = r" lists?(?! of\b)(?=[\s.!?,]*$|[.!?,]\s|,| instead| please|\s+form)"
_LIBRARY = r"(?:librar(?:y|ies|ys)|packages?|modules?|imports?|dependenc(?:y|ies)|frameworks?)"
_INTRO = r"(?:intro(?:duction)?s?|introductory \w+|preambles?|pleasantries|small ?talk|filler|lead-?ins?|warm-?up|opening (?:line|sentence|remark)s?)"

_RULES: tuple[tuple[Aspect, str, str], ...] = (
    # length
    (Aspect.LENGTH, "short", r"shorter|briefer|terser|snappier|m[aá]s (?:corto|corta|breve|conciso|concisa|resumido)s?"),
    (Aspect.LENGTH, "short", rf"{_FIX}{_SHORT}|(?:{_MAKE}|{_MORE}|{_MAKE_ES}){_SHORT}{_END}"),
    (Aspect.LENGTH, "short", rf"{_SHORT}\s+{_ANSWER}"),
    (
        Aspect.LENGTH,
        "short",
        rf"(?:{_TOO}|{_LESS}|{_TOO_ES}){_LONG}(?!\s+(?:time|ago|as|for|way|since|until|to)\b)|(?:{_TOO_ES}|menos ){_LONG_ES}",
    ),
    (
        Aspect.LENGTH,
        "short",
        rf"(?:{_MAKE_ES}|{_MORE_ES}){_SHORT_ES}|respuestas?\s+(?:m[aá]s\s+)?{_SHORT_ES}|resúmelo|resumelo|ac[oó]rtal[oa]",
    ),
    (
        Aspect.LENGTH,
        "short",
        r"(?:be|keep (?:it|this|that|your \w+)(?: as)?|stay) (?:very |really |more |super )?(?:brief|short|concise|succinct|to the point|simple and short|short and \w+)",
    ),
    (
        Aspect.LENGTH,
        "short",
        r"shorten(?: (?:it|this|that|your \w+|the \w+))?|trim (?:it|this|that)(?: down)?|cut (?:it|this|that) (?:down|short)|condense (?:it|this|that)|boil it down|(?:get|straight) to the point|tl;?dr|in a nutshell|al grano|en (?:pocas|menos) palabras",
    ),
    (
        Aspect.LENGTH,
        "short",
        r"(?:too (?:much|many) (?:text|words?|information|info|details?)|less (?:text|words?|details?|information)|fewer (?:words|sentences|details)|demasiado texto|demasiadas palabras|menos (?:texto|palabras|detalles?)|(?:no need for|without|skip) (?:so much|so many|all the|the) details?)",
    ),
    (
        Aspect.LENGTH,
        "short",
        r"(?:in|within|under|only|just|max(?:imum)?|at most|to|en)\s+(?:(?:about|no more than|at most|only|less than|sólo|solo)\s+)?(?:(?:one|two|three|a|a single|a few|a couple of|1|2|3|una?|dos|tres|1[- –]2|2[- –]3|one or two|one to two|two or three)\s+)(?:short\s+)?(?:lines?|sentences?|frases?|l[ií]neas?|oraci[oó]n(?:es)?)",
    ),
    (Aspect.LENGTH, "long", r"longer|lengthier|m[aá]s (?:larg|extens|detallad|complet)[oa]s?|a (?:lil|little|bit) more long"),
    (
        Aspect.LENGTH,
        "long",
        rf"{_FIX}{_LONG}|(?:{_MAKE}|{_MORE}|{_MORE_ES}){_LONG}{_END}|(?:{_MAKE_ES}|{_MORE_ES}){_LONG_ES}|(?:long|detailed|longer),? (?:\w+ )?{_ANSWER}|respuestas?\s+(?:m[aá]s\s+)?{_LONG_ES}",
    ),
    (Aspect.LENGTH, "long", rf"(?:{_TOO}|{_LESS}){_SHORT}(?!\s+(?:of|on|for)\b)|{_TOO_ES}{_SHORT_ES}"),
    (
        Aspect.LENGTH,
        "long",
        r"(?:in |with |add |give (?:me )?|need |want )?(?:a lot |much |some |even |way |far |extremely |lots )?(?:more|great(?:er)?|further|full|immense|precise) (?:of )?(?:detail(?:s|ed)?|depth|information|info|words|text)(?! (?:about|on|of)\b)|(?:con |dame )?m[aá]s (?:detalles?|informaci[oó]n|texto|palabras)(?! (?:sobre|de)\b)|con (?:todo )?detalles?",
    ),
    (
        Aspect.LENGTH,
        "long",
        r"(?:please )?(?:elaborate|lengthen|expand)(?: (?:on )?(?:it|this|that|your \w+|the (?:above|answer|output|text)|more|a (?:bit|little)))*(?=[\s.!?,]*$)|expand (?:on )?(?:it|this|that|your (?:answer|reply|response|text)|the (?:above|previous|answer|output|text))(?: \w+)?|flesh (?:it|this|that) out|al[aá]rgal[oa]|ampl[ií]a(?:lo|la)|explica(?:lo)? (?:m[aá]s|mejor) a fondo|tell me more|say more",
    ),
    (
        Aspect.LENGTH,
        "long",
        r"(?:don'?t|do not|no) (?:be|make it|keep it) (?:so |too |that )?(?:short(?:er)?|brief|concise)|not (?:so )?shorter",
    ),
    (
        Aspect.LENGTH,
        "short",
        r"(?:don'?t|do not|no) (?:be|make it|write it) (?:so |too |that |any )?(?:long(?:er)?|detailed|verbose|wordy)|not (?:any )?longer|no m[aá]s largo|no tan (?:larg|extens|detallad)[oa]",
    ),
    (Aspect.LENGTH, "long", r"(?:explain|elaborate|expand)(?: (?:it|this|that|on (?:it|this|that)))?(?: a (?:bit|little))? more\b"),
    (
        Aspect.LENGTH,
        "short",
        rf"short(?:en)? (?:it|this|that|these|them)(?: (?:down|up))?(?: to)?|^(?:a |the )?short (?:one|version|form|please|pls|pros|cons)|{_PAIRED}{_SHORT}{_END}|(?:{_ANSWER}|copy|text|it|this) (?:should|must|has to|needs to) be {_SHORT}",
    ),
    (
        Aspect.LENGTH,
        "short",
        r"(?:in|within|under|below|to|up to|only|just|at most|max(?:imum)?(?: of)?|(?:no|not) more than|less than|fewer than) (?:about |around )?(?:\d{1,2}|1[0-4]\d|150)(?: ?[-–] ?\d{1,3})?[- ]words?(?: or (?:less|fewer))?|\d{1,3} words (?:or less|or fewer|max(?:imum)?|at most|tops)",
    ),
    (
        Aspect.LENGTH,
        "long",
        rf"(?:extremely|very|highly|fully|super|really) (?:detailed|precise|thorough|long|in[- ]depth)(?! (?:time|ago|as|for|way|since|until|to)\b)|(?:^|[.,;!?\n]\s*|(?:it|this|that|me|explain|answer|please)\s+)in (?:full |great |greater |much more |more |every )?details?(?=\s*(?:[.,;!?)\n]|$|please|and\b))|(?:{_PAIRED}{_LONG}){_END}|go (?:into (?:more )?(?:detail|depth)|deeper)|expand (?:further|more|it further)",
    ),
    (
        Aspect.LENGTH,
        "long",
        r"(?:at least|minimum(?: of)?|no less than|not less than|(?<!no )(?<!not )more than|over|covers?|fills?) (?:\d{1,2} pages|[2-9]\d\d words|\d[,.]?\d{3} words|\d{1,2} paragraphs)",
    ),
    (
        Aspect.LENGTH,
        "short",
        r"короче|покороче|кратко|коротко|вкратце|сократи\w*|слишком длинн\w+|kürzer|knapper|zu lang|kurz und knapp|fass(?:e|t)? dich kurz|plus courte?s?|plus brefs?|trop longs?|trop longues?|en bref|raccourcis\w*|mais curt[oa]s?|mais breves?|muito long[oa]|encurt[ae]",
    ),
    (
        Aspect.LENGTH,
        "long",
        r"подробнее|поподробнее|подробно|длиннее|развернут\w+|больше деталей|слишком коротк\w+|länger|ausführlich(?:er)?|mehr details|detaillierter|zu kurz|plus longue?s?|plus détaillée?s?|trop courte?s?|plus de détails|développe[rz]?|mais long[oa]s?|mais detalhad[oa]s?|mais detalhes|muito curt[oa]|em detalhes",
    ),
    # format
    (
        Aspect.FORMAT,
        "bullets",
        r"(?:в виде|в форме) списка|списком|по пунктам|als liste|als stichpunkte|in stichpunkten|sous forme de liste|em tópicos|em (?:forma de )?lista",
    ),
    (
        Aspect.FORMAT,
        "table",
        r"(?:в виде|в форме) таблицы|таблицей|в таблицу|als tabelle|(?:en|sous forme de) tableau|em (?:forma de )?tabela",
    ),
    (
        Aspect.FORMAT,
        "bullets",
        r"(?:use|in|with|as|add|give me|make|into|want|prefer|put|convert|format|only|just|using|needs?)(?:\s+(?:it|this|that|them|those|these|the \w+|some|a|an|short|simple|key|concise|into|in|as|to|me|like|of))*\s+(?:bulleted|bullet[- ]?points?|bullets?|bulletpoints?)(?:\s+(?:list|form(?:at)?|style|points?))?",
    ),
    (
        Aspect.FORMAT,
        "bullets",
        rf"(?:put|make|write|rewrite|turn|convert|format|give|present|show)(?:\s+(?:it|this|that|them|these|those|me|us|all|everything|your {_ANSWER}|the (?:above|{_ANSWER}|points?|results?|text|information)))+\s+(?:in|into|as|in the form of)(?: an?| the)?(?: (?:simple|short|neat|clear|nice|plain))*{_PLAIN_LIST}",
    ),
    (
        Aspect.FORMAT,
        "bullets",
        rf"(?:use|give me|make|want|prefer|only|just|needs?)(?: (?:it|this|that|them))?(?: an?| the)?(?: (?:simple|short|neat|clear|nice|plain))*{_PLAIN_LIST}|(?:^|(?<=[.,;!?\n]))\s*(?:(?:please|but|and|now|no)\s+)?(?:in|as|into)(?: an?| the)?(?: (?:simple|short))*{_PLAIN_LIST}",
    ),
    (
        Aspect.FORMAT,
        "bullets",
        r"(?:bullet[- ]?points?|bullets|bulleted list|bulletpoints)(?=\s*(?:,|please|instead|only|por favor|[.!?]|$))|(?:a |as a )?list(?: form(?:at)?)?,? (?:please|instead)|bullet (?:it|them|this) (?:out|up)?|itemi[sz]e (?:it|them|this)",
    ),
    (
        Aspect.FORMAT,
        "bullets",
        r"(?:(?:con|en|usa|usando|dame|ponlo en|en forma de|como|haz|hazlo en|hazme|quiero|prefiero)(?: un[ao]?| las| los)*\s+(?:viñetas?|listas?(?! de\b)|puntos(?! de\b)))|viñetas|(?:en )?forma de lista|una lista,? por favor",
    ),
    (Aspect.FORMAT, "bullets", rf"{_NO}{_DET}?(?:{_PROSE})|not (?:as |in )?(?:a )?{_PROSE}"),
    (
        Aspect.FORMAT,
        "numbered",
        r"(?:number(?:ed)?(?: the)? (?:list|steps?|points)|number (?:them|it|these)|lista numerada|pasos numerados|step[- ]by[- ]step list|list (?:the|it in) steps|numera(?:lo|los|las))",
    ),
    (
        Aspect.FORMAT,
        "prose",
        rf"(?:as|in|into|with|use|using|write|make|want|prefer|give me|to|of|just|put|only|needs?)(?:\s+(?:it|this|that|them|the \w+|in|as|into|to|me|an?|one|only|be|all))*\s+{_PROSE}(?!\s*(?:\d|about|on|within|of|from|for|describing|explaining|sobre))",
    ),
    (
        Aspect.FORMAT,
        "prose",
        rf"(?:en|como|usa|usando|con|quiero|prefiero|ponlo en|hazlo en|escr[ií]belo en)(?:\s+(?:un|una|unos|s[oó]lo))*\s+{_PROSE}(?!\s+(?:sobre|de)\b)|{_PROSE},? (?:please|instead|por favor)|^{_PROSE}(?=[\s.!]*$)",
    ),
    (
        Aspect.FORMAT,
        "prose",
        rf"{_NO}{_DET}{_BULLETS}(?:,? (?:please|instead|por favor))?|not (?:as |in |with )?(?:an? )?{_BULLETS}|un-?bullet|que no sea una lista|no en (?:forma de )?(?:listas?|viñetas)",
    ),
    (
        Aspect.FORMAT,
        "table",
        r"(?:in|as|into|use|using|make|with|to|en|como|give me|convert)(?:\s+(?:it|this|that|them|the \w+|in|into|as|to|me|an?|una?|simple|nice|comparison|markdown))*\s+(?:table|tabular)(?:\s+(?:form(?:at)?|format))?(?!\s+(?:of contents|salt|tennis|top|\w*name))|(?:una? )?tabla,? por favor|en (?:una )?tabla|tabulate (?:it|this|that)",
    ),
    (Aspect.FORMAT, "prose", rf"{_NO}{_DET}(?:tables?|tablas?)"),
    # tone
    (
        Aspect.TONE,
        "formal",
        rf"{_MORE}{_FORMAL}|{_FIX}{_FORMAL}|{_MAKE}{_FORMAL}{_END}|(?:{_MORE_ES}|{_MAKE_ES}){_FORMAL_ES}|formal(?:,)? (?:please|instead)|^formal(?:ly)?(?=[\s.!,]*(?:please)?[\s.!]*$)|(?:an?|in|with|use|keep(?:ing)?)(?: an?| the)?(?: more)? (?:formal|professional|serious|academic) (?:tone|way|style|manner|language|wording|register)|(?:tono|manera|forma|estilo|lenguaje) (?:m[aá]s )?{_FORMAL_ES}|formal,? por favor",
    ),
    (
        Aspect.TONE,
        "formal",
        rf"(?:{_LESS}|{_TOO}){_FRIENDLY}|(?:{_TOO_ES}|menos |no tan ){_FRIENDLY_ES}|no (?:slang|jokes|small ?talk)|sin (?:bromas|chistes)|don'?t be (?:so )?(?:casual|friendly|chatty|informal)",
    ),
    (
        Aspect.TONE,
        "friendly",
        rf"{_MORE}{_FRIENDLY}|{_FIX}{_FRIENDLY}|{_MAKE}{_FRIENDLY}{_END}|(?:{_MORE_ES}|{_MAKE_ES}){_FRIENDLY_ES}|friendlier|warmer|nicer|chattier|(?:friendly|casual|informal),? (?:please|instead)|^(?:friendly|casual|informal)(?=[\s.!]*$)|(?:an?|in|with|use|keep(?:ing)?)(?: an?| the)?(?: more)? (?:friendly|casual|warm|informal|conversational|relaxed|personal) (?:tone|way|style|manner|language|wording|register)|(?:tono|manera|forma|estilo|lenguaje) (?:m[aá]s )?{_FRIENDLY_ES}|like a friend|como (?:a )?un amig[oa]",
    ),
    (
        Aspect.TONE,
        "friendly",
        rf"(?:{_LESS}|{_TOO}){_FORMAL}|(?:sounds?|reads?|feels?) (?:too |so |very |a bit )?(?:stiff|cold|robotic|formal|impersonal)|(?:too|so|less) (?:stiff|cold|robotic|dry|impersonal)|(?:{_TOO_ES}|menos |no tan )(?:{_FORMAL_ES}|fr[ií]o|seco)|don'?t be (?:so )?(?:formal|serious|stiff|cold)",
    ),
    (
        Aspect.TONE,
        "friendly",
        r"(?:keep|keeping) (?:it|this|that|the|a|my|your) (?:casual|informal|friendly|relaxed|conversational)(?: (?:terms?|words?|wording|tone|style|language|voice))?",
    ),
    (
        Aspect.TONE,
        "formal",
        rf"{_PAIRED}{_FORMAL}{_END}|более (?:формальн|официальн)\w+|(?:официальн|делов)\w+ (?:стил\w+|тон\w*|язык\w*)|förmlicher|formeller|plus formel(?:le)?s?|mais form(?:al|ais)",
    ),
    # simplicity
    (
        Aspect.SIMPLICITY,
        "simple",
        rf"(?:in|using|use|with|into|to)\s+(?:more\s+|very\s+)?{_SIMPLE}(?:,? \w+)?\s+(?:words?|terms?|english|language|wordings?|vocabulary|sentences?)|(?:simple|simpler|plain|easy|easier) (?:words|terms|language),? (?:please|pls)|{_MORE}(?:simply|easily|understandable)|simplify(?: (?:it|this|that|more))?|(?:{_MAKE})(?:simple|simpler|easier|easy to (?:understand|read))|simpler(?=[\s.,!?]|$)|dumb (?:it|this|that) down|(?:explain|say)(?: \w+){{0,3}} (?:simply|more simply)|(?:like|as if) (?:i'?m|i am|i were|to) (?:an? )?(?:five|5|ten|10|child|kid|beginner|12)\w*|eli5|for (?:a )?(?:beginners?|dummies|kids)|less (?:technical|complicated|complex|jargon)|(?:{_TOO})(?:technical|complicated|complex|difficult|advanced)|no jargon|without (?:the )?jargon",
    ),
    (
        Aspect.SIMPLICITY,
        "simple",
        r"(?:con|en|usa) (?:palabras|t[eé]rminos|lenguaje) (?:m[aá]s )?(?:simples?|sencill[oa]s?|f[aá]cil(?:es)?)|m[aá]s (?:simple|sencill[oa]|f[aá]cil(?: de entender)?)|simplif[ií]cal[oa]|menos (?:t[eé]cnico|complicado)|demasiado (?:t[eé]cnico|complicado)|para (?:principiantes|ni[nñ]os)",
    ),
    (
        Aspect.SIMPLICITY,
        "technical",
        rf"(?:{_MORE}|{_MORE_ES}){_TECHNICAL}|{_TOO}(?:simple|basic|simplistic)|demasiado (?:simple|b[aá]sico)|less (?:basic|simplistic)|(?:be|get) technical",
    ),
    (
        Aspect.SIMPLICITY,
        "simple",
        rf"(?:in|into) layman'?s terms|(?:as|like|for) an? (?:grade \w+|\w+[- ]grade|high[- ]?school|middle[- ]?school|primary school|elementary)(?:r| student| kid| level)?|{_PAIRED}(?:simple|simpler|easy|easier)(?=[\s.,!?]|$)|проще|попроще|прост(?:ыми словами|ым языком)|einfacher|in einfachen worten|plus simple(?:s|ment)?|(?:avec|en) (?:des )?mots simples|mais simples|(?:em|com) palavras simples",
    ),
    # code
    (
        Aspect.CODE,
        "complete",
        r"(?:full|complete|whole|entire) (?:source ?)?(?:code|script|program|file|implementation)|(?:give|show|write|send|want|need)(?: me)? (?:the )?(?:all the code|all code|code in full)|c[oó]digo (?:completo|entero)|todo el c[oó]digo",
    ),
    (
        Aspect.CODE,
        "commented",
        rf"(?:add|with|include|more|write)(?: some| the| more| inline| detailed)* {_COMMENTS}(?: (?:to|in) (?:the |this |your )?(?:code|script|function))?|comment (?:the|your|this) code|(?:con|añade|agrega) comentarios|comenta el c[oó]digo",
    ),
    (Aspect.CODE, "bare", rf"{_NO}{_DET}{_COMMENTS}"),
    (
        Aspect.CODE,
        "only",
        r"(?:only|just)(?: (?:give me|show|send|write|want|need|return|output))?(?: me)?(?: the)? (?:code|script)|code only|(?:no|without|skip)(?: any| the)? (?:explanations?|explaining)|solo el c[oó]digo|sin explicaci[oó]n(?:es)?",
    ),
    (
        Aspect.CODE,
        "only",
        r"(?:give|show|send|write)(?: me)?(?: the| just the| only the)? code (?:directly|alone|only)|^(?:just |please |only )?(?:give|show|send)(?: me)?(?: the)? code(?=[\s.!]*(?:please|pls)?[\s.!]*$)",
    ),
    (Aspect.CODE, "complete", r"полный код|весь код|код полностью|vollständige[rn]? code|code complet|código completo"),
    (
        Aspect.CODE,
        "plain",
        rf"(?:without|not|don'?t|do not|dont|avoid|no|instead of)(?: (?:use|using|import|importing|need))?(?: (?:any|the|an?|other))*(?: (?:externa?l?|extra|third[- ]party|other|additional|outside|special|python))* {_LIBRARY}|(?:without|not use|don'?t use|do not use|avoid)(?: using)?(?: the)? (?!the\b|any\b|an?\b)\w+ {_LIBRARY}|(?:without|not|don'?t|do not)(?: (?:use|using|import|importing)) (?:numpy|pandas|scipy|sklearn|scikit-learn|jquery|lodash|itertools|functools|regex|react)|(?:use|using|with)(?: only| just)?(?: python'?s?| the)? (?:built[- ]?ins?|standard|native|vanilla|pure) (?:{_LIBRARY}|functions?|methods?|python|javascript|js|css)|in (?:plain|pure|vanilla) (?:python|javascript|js|java|css)",
    ),
    (
        Aspect.CODE,
        "none",
        r"(?:no|without|don'?t (?:want|use|give me|write|show)(?: any| me)?|sin|nada de)(?: any| the)? (?:code|c[oó]digo)(?=[\s.,!?]|$)",
    ),
    # emoji
    (
        Aspect.EMOJI,
        "with",
        rf"(?:add|use|with|include|more|some|put|needs?|want|con|añade|agrega|pon|usa|m[aá]s)(?:\s+(?:some|more|a few|the|a lot of|lots of|algunos|unos|m[aá]s|in))*\s+{_EMOJIS}",
    ),
    (Aspect.EMOJI, "without", rf"{_NO}{_DET}{_EMOJIS}"),
    # examples
    (
        Aspect.EXAMPLES,
        "with",
        r"(?:with|add|include|use|need|want|give(?: me)?|show(?: me)?|provide)(?:\s+(?:some|more|an?|a few|concrete|real|specific|practical|better|another|few|clear|several|different))*+\s+examples?(?! of\b)|con (?:un |algunos |m[aá]s )?ejemplos?|(?:dame|pon|añade|incluye)(?: un| algunos| unos| m[aá]s)* ejemplos?(?! de\b)",
    ),
    (Aspect.EXAMPLES, "without", rf"{_NO}{_DET}(?:examples?|ejemplos?)"),
    # exclamation marks
    (
        Aspect.EXCLAMATION,
        "with",
        rf"(?:add|use|with|put|some|more|want|like|need)(?:\s+(?:some|more|a few|in|an?|lots of))*\s+{_SHOUTS}|livelier|(?:{_MAKE}|{_MORE})(?:lively|enthusiastic|energetic|excited|upbeat)|more (?:enthusiasm|energy|excitement)",
    ),
    (
        Aspect.EXCLAMATION,
        "without",
        rf"{_NO}{_DET}{_SHOUTS}|(?:stop|no need for|no need to|don'?t|quit) (?:the )?(?:shout(?:ing)?|yell(?:ing)?)|{_LESS}(?:enthusiastic|excited|excitable|lively)|less (?:enthusiasm|excitement)",
    ),
    # the end
    (
        Aspect.CLOSING,
        "question",
        r"(?:end|finish|close|conclude|wrap up)(?: (?:it|this|that|with|on|by|the|your|\w+)){0,4} (?:asking me (?:a question|something)|(?:with|on) an? (?:\w+ )?question)|ask me (?:a question|something)(?: back| in return)?(?: at the end)?|(?:a|your|one) (?:follow-?up )?question (?:for me )?at the end",
    ),
    (
        Aspect.CLOSING,
        "statement",
        r"(?:don'?t|do not|stop|no need to|never|without|avoid) (?:end|finish|clos|conclud)(?:e|ing|ed)?(?: \w+){0,4} (?:with|on|by asking)(?: an?| your)? questions?|(?:no|without(?: the| a)?|skip the|drop the|leave out the|lose the|remove the) (?:closing |final |last )?questions? (?:at the end|back)|(?:don'?t|do not|stop) ask(?:ing)? me (?:(?:any|more|back|those) )*(?:questions?|back|anything)|(?:drop|skip|no|without|lose|remove)(?: the| a)? (?:closing|final|last) questions?",
    ),
    # the beginning
    (
        Aspect.OPENING,
        "direct",
        rf"(?:{_NO}|less|cut|leave out|omit){_DET}(?:your\s+)?(?:long\s+)?{_INTRO}|(?:start|begin|open|lead) (?:right |straight |directly )?with the (?:answer|point|main point|essentials?|result|facts?)|(?:give me |put )?the (?:answer|main point) first|answer (?:the question )?(?:first|right away|straight away|directly)|(?:go|get|come) (?:straight|right|directly) to the answer",
    ),
)


def _language_rules() -> Iterator[tuple[Aspect, str, str]]:
    """A language counts when the answer is to be in it: said on its own, or after a verb of writing; not "say X in Spanish"."""
    verbs = (
        r"(?:answer|reply|respond|write|rewrite|redo|repeat|explain|speak|talk|continue|do|say|give|tell|make|want|need|prefer|try|switch|convert|put|"
        r"respond[ea]|contest[ae]|escr[ií]be|repite|expl[ií]ca|habla|hazlo|d[ií]me|quiero|prefiero|ponlo|dame)\w*"
    )
    objects = (
        r"(?:\s+(?:it|this|that|them|me|again|the same|all|your|the|answers?|repl(?:y|ies)|everything|result|text|please|only|same|thing|always|to|back|"
        r"and|with|be|up|of|lo|la|todo|de nuevo|otra vez|por favor|siempre|en|un[ao]?|respuestas?|esto|eso|mismo|el|list|version)){0,6}"
    )
    for name, words in LANGUAGES.items():
        spoken = rf"(?:in|into|en)\s+(?:{words})\b"
        yield (
            Aspect.LANGUAGE,
            name.lower(),
            rf"(?:^|[.!?;,\n]\s*|\b(?:but|now|also|again|same|please|instead|no|only|pero|ahora|otra vez|and)\s+(?:please\s+)?){spoken}(?=\s*(?:[.!?,;\n]|$|please|instead|only|now|this time|por favor|solo|a partir|from now))",
        )
        yield Aspect.LANGUAGE, name.lower(), rf"\b{verbs}{objects}\s+{spoken}"
        yield (
            Aspect.LANGUAGE,
            name.lower(),
            rf"(?:translate|traduc\w+|convert\w*|change|switch)(?:\s+(?:it|this|that|them|your (?:answer|reply|response)|the (?:above|answer|previous\s?\w*)|all|everything|lo|esto|eso))?(?:\s+back)?\s+(?:in|into|to|al?|en)\s+(?:{words})(?=\s*(?:[.!?,;]|$|please|por favor))",
        )
        yield (
            Aspect.LANGUAGE,
            name.lower(),
            rf"(?:^|[.!?]\s*)(?:{words}),?\s*(?:please|por favor|only|pls)|(?:^|[.!?]\s*)(?:{words})(?=\s*[.!]?\s*$)|(?:speak|use|habla|usa)\s+(?:{words})\b|i (?:don'?t|do not|only) (?:\w+ ){{0,2}}(?:speak|understand|read) (?!(?:{words}))\w+, (?:in )?(?:{words})|(?:{words}) (?:version|answer|reply),? please|(?:i (?:only )?speak|hablo) (?:{words})\b",
        )


def _programming_rules() -> Iterator[tuple[Aspect, str, str]]:
    """A programming language counts when code is asked for in it: after "in" or "using", or before the word for code."""
    code = r"(?:source )?(?:code|script|program|function|class|method|implementation|snippet|example|query|syntax|one-liner)s?"
    for name, words in PROGRAMMING_LANGUAGES.items():
        yield (
            Aspect.PROGRAMMING_LANGUAGE,
            name.lower(),
            rf"(?:in|into|using|with|to|en)(?: (?:plain|pure|vanilla|basic|simple))? (?:{words})(?! (?:shell|tutorial|course|developer|job|interview)\w*)|(?:{words}) {code}",
        )


_UNSPACED: tuple[tuple[Aspect, str, str], ...] = (
    (Aspect.LENGTH, "short", r"简短|精简|简洁|简练|太长|缩短|短一点|短一些|简要"),
    (Aspect.LENGTH, "long", r"扩写|更详细|详细(?:一点|一些|些|说明|解释|地)|请详细|太短|加长|长一点|长一些"),
    (Aspect.FORMAT, "bullets", r"分点|列点|(?:用|以)列表"),
    (Aspect.FORMAT, "table", r"(?:用|以|做成|成)表格"),
    (Aspect.TONE, "formal", r"学术(?:的|化的?)?(?:语言|风格|语气)|正式(?:的|一点|一些)"),
    (Aspect.SIMPLICITY, "simple", r"简单(?:点|一点|些|一些|易懂)|通俗|易懂"),
    (Aspect.CODE, "complete", r"完整(?:的)?代码"),
    (Aspect.CODE, "commented", r"(?:加|写|添加)(?:上)?注释"),
    (Aspect.LANGUAGE, "chinese", r"(?:用|以|说)(?:简体|繁体)?中文"),
    (Aspect.LANGUAGE, "english", r"(?:用|以|说)英(?:文|语)"),
)
"""Of scripts that put no spaces between words."""

_AMBIGUOUS = re.compile(r"(?<!bullet )(?<!bulleted )(?<!numbered )\blists?\b|\btabl(?:es?|as?)\b|\btabular\b|\blistas?\b", re.IGNORECASE)
_OF_DATA = re.compile(
    r"(?<!\w)(?:python|numpy|pandas|data ?frames?|df|arrays?|tuples?|dict(?:s|ionary|ionaries)?|integers?|ints?|strings?|elements|numbers|"
    r"functions?|sql|csv|json|xml|html|columns?|append|sort(?:ed)?|loops?|index(?:es)?|database|queries|query|regex|java\w*|return(?:s|ed)?|"
    r"variables?|methods?|comprehensions?|parse|code|script)(?!\w)|\w_\w|\w\(",
    re.IGNORECASE,
)
"""Words with which a list or a table is most often data."""


class Rule(NamedTuple):
    """A wish and how it is worded.

    Attributes:
        aspect: What the wish is about.
        value: What is wanted.
        pattern: The wordings.
        needs: What has to occur in a text for ``pattern`` to match: a quick look spares most texts the slowest rules.
    """

    aspect: Aspect
    value: str
    pattern: re.Pattern[str]
    needs: re.Pattern[str] | None = None


@lru_cache(maxsize=1)
def lexicon() -> tuple[Rule, ...]:
    """The rules, compiled."""
    named = (
        (_language_rules(), _any_of(LANGUAGES.values())),
        (_programming_rules(), _any_of(PROGRAMMING_LANGUAGES.values())),
    )
    spaced = ((*rule, needs) for rules, needs in ((_RULES, None), *named) for rule in rules)
    return (
        *(Rule(aspect, value, re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE), needs) for aspect, value, words, needs in spaced),
        *(Rule(aspect, value, re.compile(words, re.IGNORECASE)) for aspect, value, words in _UNSPACED),
    )


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


_HIDDEN = re.compile(r"```.*?(?:```|\Z)|“[^“”]*”|«[^«»]*»|\"[^\"\n]*\"|(?<!\w)'[^'\n]{12,}'(?!\w)", re.DOTALL)
_ASKS_FOR_A_WORD = re.compile(
    r"how (?:do|would|can|to) (?:\w+ )?(?:say|write|spell|call|pronounce)|what(?:'s| is| does)\b.{0,400}\b(?:word|mean|called)|c[oó]mo se (?:dice|escribe)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


def windows(text: str) -> list[str]:
    """The parts of ``text`` that are read for wishes, verbatim except that code and quotations are blanked out."""
    if len(text) > 2 * MAX_PASTED:
        text = text[:MAX_PASTED] + "\n" + text[-MAX_PASTED:]
    plain = _HIDDEN.sub(lambda hidden: "\0" * len(hidden.group()), text)
    if len(plain) <= MAX_CHARACTERS:
        return [plain]
    sentences = [found.group().strip() for found in _SENTENCE.finditer(plain) if found.group().strip()]
    chosen = sentences[:1] + sentences[1:][-2:]
    return [sentence for sentence in chosen if len(sentence) <= MAX_SENTENCE]


def requests(text: str) -> list[AspectRequest]:
    """Read the wishes about an answer's style from a message, at most one per aspect, in the order of ``Aspect``.

    Args:
        text: A user message.

    Returns:
        One request per aspect named; where a message names an aspect more than once, its last mention.
    """
    found: dict[Aspect, AspectRequest] = {}
    for window in windows(_plain(text)):
        for aspect, value, start, end in _matches(window):
            found[aspect] = AspectRequest(aspect, value, LINES[aspect][value], text_span(text, window, start, end))
    return [found[aspect] for aspect in Aspect if aspect in found]


def _plain(text: str) -> str:
    """``text`` with plain apostrophes, character for character."""
    return text.replace("’", "'")


def text_span(text: str, window: str, start: int, end: int) -> str:
    """The characters of ``text`` that ``window[start:end]`` stands for; apostrophes keep the form the user typed."""
    offset = _plain(text).find(window[start:end])
    return text[offset : offset + end - start].strip(" ,;.!?\n")


@lru_cache(maxsize=_KEPT_WINDOWS)
def _matches(window: str) -> tuple[tuple[Aspect, str, int, int], ...]:
    hits: list[tuple[Aspect, str, int, int]] = []
    asks_for_a_word, speaks_of_data = _ASKS_FOR_A_WORD.search(window) is not None, _OF_DATA.search(window) is not None
    occurs = {needs: needs is None or needs.search(window) is not None for needs in {rule.needs for rule in lexicon()}}
    for aspect, value, pattern, needs in lexicon():
        if not occurs[needs] or (aspect is Aspect.LANGUAGE and asks_for_a_word):
            continue
        of_data = aspect is Aspect.FORMAT and speaks_of_data
        found = (hit for hit in pattern.finditer(window) if not (of_data and _AMBIGUOUS.search(hit.group())))
        hits.extend((aspect, value, hit.start(), hit.end()) for hit in found)
    kept = [hit for hit in hits if not any(_covers(other, hit) for other in hits)]
    return tuple(sorted(kept, key=lambda hit: (hit[3], hit[2])))


def _covers(other: tuple[Aspect, str, int, int], hit: tuple[Aspect, str, int, int]) -> bool:
    """Whether ``other`` is a longer match on the same aspect that overlaps ``hit``."""
    overlaps = other[0] is hit[0] and other[2] < hit[3] and hit[2] < other[3]
    return overlaps and other[3] - other[2] > hit[3] - hit[2]
