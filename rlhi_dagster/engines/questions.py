"""A question to a chat model: a template of ``prompts/`` with texts put in.

What belongs here: reading a template, putting texts in so that they can neither be taken for the template nor run past a length, and
what the answer to a choice says. What does not: what is asked (each question's own module) and the model's chat template (``prompts``).

Templates and blocks stand around a text as tags, ``<name>`` and ``</name>``. Whatever in a text could be read as a tag of the same request
has ``&lt;`` in the place of its bracket: also in capitals, with spaces or invisible characters, in full width, in letters and brackets that
look alike, open or closed. So every block ends where the renderer ended it, and nobody but the renderer begins another turn of a dialogue.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages

Chat = Callable[[list[ChatRequest]], list[ChatAnswer]]
"""Answers requests in order, greedily."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_TAG = re.compile(r"</?([a-z]\w*)\b[^<>]*>", re.IGNORECASE | re.ASCII)
_SINGLE, _DOUBLE = (
    "<\u226e\uff1c\ufe64\u2039\u3008\u2329\u27e8\u276c\u276e\u2770\u02c2\u1438\u16b2\u227a\u2991\u29fc",
    "\u00ab\u300a\u27ea\u226a",
)
"""The opening bracket with what looks like it, and quotation marks that look like two of them."""
_CLOSING = ">\u226f\u203a\u3009\u27e9\u276d\u276f\u2771\u02c3\u1433\u227b\u2992\u29fd"
_OPENING = re.compile(f"([{_SINGLE}{_DOUBLE}])([^{_SINGLE}{_DOUBLE}]*)")
_LONGEST_ATTRIBUTE = 20
"""Letters looked at beyond a name, to tell a tag from a comparison."""
_SLASHES = frozenset("/\\|\u2044\u2215\u2571\u2572\u27cb\u27cd\u29f8\u29f9")
_BLANK = frozenset("\u115f\u1160\u2800")
"""Letters and signs that show nothing, beside what Unicode calls controls, formats and marks."""
_ALIKE = str.maketrans(
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0405\u0406\u0408\u051a\u051c"  # Cyrillic capitals
    "\u0430\u0432\u0433\u0435\u0438\u043a\u043c\u043d\u043e\u043f\u0440\u0441\u0442\u0443\u0445\u044c\u0454\u0455\u0456\u0458\u0475\u0493\u04af"
    "\u04bb\u04cf\u0501\u051b\u051d"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"  # Greek capitals
    "\u03b1\u03b2\u03b3\u03b5\u03b7\u03b9\u03ba\u03bd\u03bf\u03c1\u03c3\u03c4\u03c5\u03c7\u03c9"
    "\u0563\u0570\u0578\u057d\u0581\u0585"  # Armenian
    "\u0111\u0131\u0142\u00f0\u00f8\u0192\u0237\u0251\u0261\u0269\u026a\u0274\u0280\u028f\u0299\u029c\u029f"  # Latin
    "\u1d00\u1d04\u1d05\u1d07\u1d0a\u1d0b\u1d0d\u1d0f\u1d18\u1d1b\u1d1c\u1d20\u1d21\u1d22\ua730\ua731",
    "ABEKMHOPCTYXSIJQWabreukmhonpctyxbesijvfyhldqwABEZHIKMNOPTYXabyenikvopotuxwqhnugodildofjagiinrybhlacdejkmoptuvwzfs",
)
"""Letters of other scripts, and small capitals, to the ones that they look like."""


@dataclass(frozen=True, slots=True)
class _LaidOver:
    """Whose prompts are read: those of a folder first, each noted by name."""

    folder: str | None = None
    note: Callable[[str], None] | None = None


_PACKAGED = _LaidOver()
_in_use: ContextVar[_LaidOver] = ContextVar("prompts in use", default=_PACKAGED)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of what is shown, between tags of its own.

    Attributes:
        tag: Name of the tags, in small letters.
        said: The text, or the blocks in this one.
        attributes: What the opening tag says beside its name; never text of a user or a model.
    """

    tag: str
    said: str | Sequence[Block]
    attributes: Mapping[str, str | int] = field(default_factory=dict)


Shown = str | Sequence[Block]


def template(name: str) -> str:
    """The text of ``prompts/<name>.md``, or of the file of that name in the folder that is in use."""
    laid_over = _in_use.get()
    if laid_over.note:
        laid_over.note(name)
    return text_of(name, laid_over.folder)


@contextmanager
def prompts_in(folder: str | None, note: Callable[[str], None] | None = None) -> Iterator[None]:
    """Lay a folder of prompts over those of the project, for as long as the context lasts.

    Args:
        folder: The folder; ``None`` for the project's own alone.
        note: Called with the name of each prompt that is read.
    """
    token = _in_use.set(_LaidOver(folder, note))
    try:
        yield
    finally:
        _in_use.reset(token)


@functools.cache
def text_of(name: str, folder: str | None = None) -> str:
    """The text of a prompt, of ``folder`` if it has one of that name; read once in a process."""
    own = Path(folder, f"{name}.md") if folder else None
    file = own if own and own.is_file() else files("rlhi_dagster") / "prompts" / f"{name}.md"
    return file.read_text(encoding="utf-8")


def check_prompts(folder: str) -> None:
    """Refuse a folder with a prompt that nothing reads, or that wants to be shown what it will not be.

    Raises:
        ValueError: There is one; the message names the file.
    """
    known = sorted(entry.name for entry in (files("rlhi_dagster") / "prompts").iterdir() if entry.name.endswith(".md"))
    for file in sorted(Path(folder).glob("*.md")):
        if file.name not in known:
            raise ValueError(f"{file}: no prompt is called so; there are {', '.join(known)}")
        wanted, shown = (set(_PLACEHOLDER.findall(text_of(file.stem, where))) for where in (folder, None))
        if unknown := sorted(wanted - shown):
            raise ValueError(
                f"{file}: nothing is shown as {{{unknown[0]}}}; there are {', '.join(f'{{{name}}}' for name in sorted(shown))}"
            )


def question(text: str, shown: Mapping[str, Shown], limits: Mapping[str, int] | None = None) -> Messages:
    """One user message: a template with texts in the place of ``{name}``.

    All texts are put in together, so that one which happens to contain ``{name}`` is shown as it is, but for what could be read as a tag of
    the template or of a block.

    Args:
        text: The template.
        shown: The text, or the blocks, of each name.
        limits: Most characters of each name's text, or of each text in its blocks; see ``shortened``. Without them nothing is cut.

    Raises:
        KeyError: The template has a name that is not shown, or a limit is missing.
    """
    tags = frozenset(map(str.lower, _TAG.findall(text))).union(*map(_tags, shown.values()))
    texts = {name: _rendered(said, sys.maxsize if limits is None else limits[name], tags) for name, said in shown.items()}
    return [{"role": "user", "content": _PLACEHOLDER.sub(lambda match: texts[match.group(1)], text)}]


def transcript(messages: Sequence[Mapping[str, str]]) -> list[Block]:
    """A conversation as a model reads it in a question: each message a block that says whose it is."""
    return [Block("turn", message["content"], {"role": message["role"]}) for message in messages]


def shortened(text: str, limit: int) -> str:
    """``text``, or, if it is longer than ``limit`` characters, its beginning and end with a note of what is left out between them."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}\n[... {len(text) - limit:,} characters left out ...]\n{text[head - limit :]}"


def choice_probabilities(answer: ChatAnswer, choices: tuple[str, ...]) -> list[float]:
    """Of each choice; all on the chosen one where the engine does not tell them."""
    if answer.probabilities is not None:
        return answer.probabilities
    return [float(choice == answer.text) for choice in choices]


def _tags(shown: Shown) -> set[str]:
    """Tags of blocks, and of the blocks in them."""
    return set() if isinstance(shown, str) else {block.tag for block in shown}.union(*(_tags(block.said) for block in shown))


def _rendered(shown: Shown, limit: int, tags: frozenset[str]) -> str:
    if isinstance(shown, str):
        return _inert(shortened(shown, limit), tags)
    return "\n".join(_block(block, _rendered(block.said, limit, tags)) for block in shown)


def _block(block: Block, said: str) -> str:
    attributes = "".join(f' {name}="{value}"' for name, value in block.attributes.items())
    return f"<{block.tag}{attributes}>\n{said}\n</{block.tag}>"


def _inert(text: str, tags: frozenset[str]) -> str:
    """``text`` with ``&lt;`` for every bracket that begins what could be read as one of the tags."""
    if not tags:
        return text
    is_tag, most = _reading(tags), 2 * max(map(len, tags)) + _LONGEST_ATTRIBUTE

    def escaped(found: re.Match[str]) -> str:
        bracket, after = found.groups()
        seen = ("<" if bracket in _SINGLE else "\u00ab") + "".join(islice(_letters(after), most))
        return f"&lt;{after}" if is_tag(seen) else found.group()

    return _OPENING.sub(escaped, text)


@functools.cache
def _reading(tags: frozenset[str]) -> Callable[[str], re.Match[str] | None]:
    """Whether what one sees is a tag: a bracket, then a slash or the name at once; after a space only what goes on as a tag does."""
    name = "|".join(r"\s?".join(r"[\s_-]?" if letter == "_" else letter for letter in tag) for tag in sorted(tags))
    return re.compile(rf"(?:<|[<\u00ab]/)(?:{name})(?!\w)|< (?:{name})(?:\s?[{_CLOSING}]|\s\w+\s?=)").match


def _letters(after: str) -> Iterator[str]:
    """What one sees after a bracket, in small plain letters: one space for all white space, one slash for all before them."""
    before, has_begun = "", False
    for letter in unicodedata.normalize("NFKD", after).translate(_ALIKE).casefold():
        is_space = letter.isspace()
        if not is_space and (letter in _BLANK or unicodedata.category(letter)[0] in "CM"):
            continue
        if is_space or (letter in _SLASHES and not has_begun):
            before = max(before, " " if is_space else "/")
            continue
        yield from (before, letter) if before else (letter,)
        before, has_begun = "", True
    yield before
