r"""Text of others on its way out: to terminals and logs, and to Markdown.

What belongs here: for each of these exits the one function that makes text inert there. What does not: CSV (``base/sheets.py``), HTML
(the report's templates escape, ``report/page.py``), prompts (``engines/questions.py``) and control tokens (``base/control_tokens.py``).

Users, files and models choose their texts. ``\x1b]52;c;…`` in a message would write into the clipboard of whoever looks at it in a
terminal, and ``![](https://example.org/?x)`` in a name would load a picture in the UI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but line break and tab: escapes, bells, carriage returns
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # what turns the direction of writing
    "\u2028\u2029\ufff9-\ufffb"  # other line breaks, annotations
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, hidden letters
)
_PLAIN = re.compile(r"[\w ,.;:%()/@'\"?=+\u2013\u2014\u2018-\u201f\u2026\u2212\u202f\u00a0\u2264\u2265\u00d7\u2588-]*")
"""What Markdown shows as it stands, in the middle of a line."""
_ANYWAY = re.compile(r"://|\bwww\.|\bmailto:|\bxmpp:|@[-\w]+\.|(?<!\w)_|_(?!\w)|^\s*(?:[-+=#]|\d+[.)]\s)", re.IGNORECASE)
"""What is something in Markdown although its characters are plain: links, emphasis, and what begins a block."""
_INTERVAL = re.compile(r"\[[\d.,% +\u2212-]*\](?![\[(:])")
"""Numbers in brackets, which are no link."""


def visible(text: str) -> str:
    r"""The text with ``\u001b`` in the place of what a terminal would obey or nobody would see; line breaks and tabs stay.

    The escapes are those of JSON, so JSON stays JSON and means the same.
    """
    return _UNSEEN.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _units(ord(found[0]))), text)


def lines(each: Iterable[str]) -> str:
    r"""Lines of text, none of which can make another: a line break in one is shown as ``\u000a``."""
    return "\n".join(line(said) for said in each)


def line(text: str) -> str:
    """``visible`` in one line."""
    return visible(text).replace("\n", "\\u000a")


def markdown(text: object) -> str:
    """A text in the middle of a line of Markdown or in a cell of a table: as it stands where that is harmless, else as code.

    In code nothing is a link, a picture, HTML or emphasis. White space becomes single spaces.
    """
    said = " ".join(visible(str(text)).split())
    is_plain = _PLAIN.fullmatch(_INTERVAL.sub("", said)) and not _ANYWAY.search(said)
    return said if is_plain else markdown_code(said)


def markdown_code(text: object) -> str:
    """A text as code, in the middle of a line of Markdown or in a cell of a table."""
    said = " ".join(visible(str(text)).split())
    fence = "`" * (1 + _longest("`", said))
    air = " " if said.startswith("`") or said.endswith("`") or not said else ""
    return f"{fence}{air}{said}{air}{fence}"


def markdown_block(text: str, language: str) -> str:
    """A text of several lines as a block of code that no line of it can end."""
    fence = "`" * max(3, 1 + _longest("`", text))
    return f"{fence}{language}\n{visible(text).rstrip()}\n{fence}"


def markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]], alignments: Sequence[str] | None = None) -> str:
    """A table of cells that are Markdown already: of texts of others, what ``markdown`` or ``markdown_code`` makes."""
    ruled = "|".join(alignments or ["---"] * len(names))
    return "\n".join([f"| {' | '.join(map(_cell, names))} |", f"|{ruled}|", *(f"| {' | '.join(map(_cell, row))} |" for row in rows)])


def _cell(said: str) -> str:
    """A cell whose bars end it nowhere; readers differ on backslashes before a bar, so a space parts the two."""
    return said.replace("\\|", "\\ |").replace("|", "\\|")


def _units(code: int) -> list[int]:
    """A character as units of UTF-16, which is what JSON escapes."""
    return [code] if code < 0x10000 else [0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)]


def _longest(character: str, text: str) -> int:
    return max(map(len, re.findall(re.escape(character) + "+", text)), default=0)
