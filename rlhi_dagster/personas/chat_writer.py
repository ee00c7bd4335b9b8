"""The persona writer that is a language model: it reads a few conversations at a time and brings its lines up to date.

What belongs here: what is asked, and what is made of the answers. What does not: calling the model (handed in as ``chat``) and which
messages an update has (``reading``).

The model never writes a persona anew: lines that it does not mention stay, with their evidence and from when they were. What it writes
counts only as far as users' words carry it: a quote must be in the message it cites, word for word up to white space.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from rlhi_dagster.engines.base import ChatRequest
from rlhi_dagster.engines.questions import Chat, question, template
from rlhi_dagster.personas.languages import is_in_another_language
from rlhi_dagster.personas.reading import SHOWN_MESSAGES, Message, shown, updates
from rlhi_dagster.personas.versions import MAX_EVIDENCE, Citation, Dropped, Written, table, version

if TYPE_CHECKING:
    from rlhi_dagster.personas.settings import PersonaSettings


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is valid now; ``number`` is that of its slot."""

    number: int
    text: str
    since: datetime
    citations: tuple[Citation, ...]
    call_id: str


@dataclass(slots=True)
class Notes:
    """What a writer knows of one user: the lines that are valid now, and how many there ever were."""

    lines: list[Line] = field(default_factory=list)
    numbers: int = 0


@dataclass(frozen=True, slots=True)
class ChatWriter:
    """A chat model as persona writer.

    Attributes:
        model: Identity of the model.
        chat: The model.
        settings: How many lines, how long, in which language, and how much is read at a time.
        question: What is asked; `prompts/persona_writer.md`.
    """

    model: str
    chat: Chat
    settings: PersonaSettings
    question: str

    @classmethod
    def with_default_prompt(cls, model: str, chat: Chat, settings: PersonaSettings) -> ChatWriter:
        """A writer with ``prompts/persona_writer.md``."""
        return cls(model, chat, settings, template("persona_writer"))

    def persona_lines(self, turns: pl.LazyFrame) -> Written:
        """Build all versions of all users' persona lines, the updates of all users abreast.

        Args:
            turns: Rows of ``tables.TURNS``.

        Returns:
            Versions of one user and slot follow each other without overlap. What an update changes is valid from the time of its last
            message. An update whose answer is an error changes nothing.
        """
        notes: dict[str, Notes] = {}
        rows: list[dict[str, Any]] = []
        dropped: Counter[str] = Counter()
        for wave in updates(turns, self.settings.conversations_per_update):
            read = {user_id: messages[-SHOWN_MESSAGES:] for user_id, messages in wave.items()}
            dropped[Dropped.MESSAGE_NOT_SHOWN] += sum(map(len, wave.values())) - sum(map(len, read.values()))
            requests = [self._request(notes.setdefault(user_id, Notes()), messages) for user_id, messages in read.items()]
            for (user_id, messages), answer in zip(read.items(), self.chat(requests), strict=True):
                if answer.text is None:
                    dropped[f"answer_{(answer.error or 'unknown').partition(':')[0]}"] += 1
                else:
                    ended = _Update(notes[user_id], messages, answer.call_id, self.settings, dropped).made(json.loads(answer.text))
                    rows += [self._row(user_id, line, messages[-1].asked_at) for line in ended]
        rows += [self._row(user_id, line, None) for user_id, known in notes.items() for line in known.lines]
        return Written(table(rows), +dropped)

    def _request(self, known: Notes, messages: list[Message]) -> ChatRequest:
        lines = "\n".join(_noted(n, line) for n, line in enumerate(known.lines, 1))
        given = {name: str(value) for name, value in self.settings.model_dump().items()}
        asked = question(self.question, {**given, "lines": lines, "messages": shown(messages)})
        return ChatRequest(asked, json_schema=schema(self.settings.max_lines))

    def _row(self, user_id: str, line: Line, until: datetime | None) -> dict[str, Any]:
        return version(user_id, f"line-{line.number}", line.text, (line.since, until), line.citations, self.model, line.call_id)


def _noted(number: int, line: Line) -> str:
    # One line each, so that no quote can begin another note.
    quotes = "; ".join(f'"{" ".join((citation.quote or "").split())}"' for citation in line.citations)
    return f"{number}. {line.text} ({quotes})"


def schema(max_lines: int) -> str:
    """What a reply must be, as a JSON schema."""
    number = {"type": "integer", "minimum": 1}
    citation = _object(message=number, quote={"type": "string", "minLength": 2})
    said = {"line": {"type": "string"}, "citations": {"type": "array", "items": citation, "minItems": 1, "maxItems": MAX_EVIDENCE}}
    lists = {"withdrawn": number, "revised": _object(number=number, keeps_evidence={"type": "boolean"}, **said), "new": _object(**said)}
    return json.dumps(_object(**{name: {"type": "array", "items": items, "maxItems": max_lines} for name, items in lists.items()}))


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def verbatim(quote: str, text: str) -> str | None:
    """The words of the text that the quote repeats, as they stand there; ``None`` if it does not, white space aside."""
    words, said = quote.split(), " ".join(text.split())
    begin = said.find(" ".join(words))
    if begin < 0 or not words:
        return None
    legible = [place for place, sign in enumerate(text) if not sign.isspace()]
    first = begin - said.count(" ", 0, begin)
    return text[legible[first] : legible[first + len("".join(words)) - 1] + 1]


@dataclass(frozen=True, slots=True)
class _Update:
    """One user's answer and what it is about."""

    notes: Notes
    messages: list[Message]
    call_id: str
    settings: PersonaSettings
    dropped: Counter[str]

    def made(self, reply: dict[str, Any]) -> list[Line]:
        """Change the notes as the reply says; return the lines that ended, less those that were valid at no moment."""
        before = dict(enumerate(self.notes.lines, 1))
        after = dict(before)
        touched: set[int] = set()
        for number in reply["withdrawn"]:
            if self._is_known(number, before, touched):
                del after[number]
        for change in reply["revised"]:
            if self._is_known(change["number"], before, touched):
                kept = before[change["number"]]
                earlier = kept.citations if change["keeps_evidence"] else ()
                others = {line.text for number, line in after.items() if number != change["number"]}
                if line := self._line(kept.number, change, earlier, others):
                    after[change["number"]] = line
        self.notes.lines = list(after.values())
        for addition in reply["new"]:
            if line := self._line(self.notes.numbers + 1, addition, (), {line.text for line in self.notes.lines}):
                if len(self.notes.lines) < self.settings.max_lines:
                    self.notes.lines.append(line)
                    self.notes.numbers += 1
                else:
                    self.dropped[Dropped.LINE_GAVE_WAY] += 1
        ended = [line for number, line in before.items() if after.get(number) is not line]
        return [line for line in ended if line.since < self.messages[-1].asked_at]

    def _is_known(self, number: int, lines: dict[int, Line], touched: set[int]) -> bool:
        """Whether there is a line of the number that the reply has not changed yet; counted if not."""
        if number not in lines or number in touched:
            self.dropped[Dropped.LINE_REPEATED if number in lines else Dropped.LINE_UNKNOWN] += 1
            return False
        touched.add(number)
        return True

    def _line(self, number: int, said: dict[str, Any], earlier: tuple[Citation, ...], others: set[str]) -> Line | None:
        text = " ".join(said["line"].split())
        citations = list(self._citations(said["citations"], {each.turn_id for each in earlier}))
        if reason := self._fault(text, others, citations):
            self.dropped[reason] += 1
            return None
        return Line(number, text, self.messages[-1].asked_at, (*earlier, *citations)[-MAX_EVIDENCE:], self.call_id)

    def _fault(self, text: str, others: set[str], citations: list[Citation]) -> Dropped | None:
        if not text:
            return Dropped.LINE_EMPTY
        if len(text) > self.settings.max_line_characters:
            return Dropped.LINE_TOO_LONG
        if text in others:
            return Dropped.LINE_REPEATED
        if not citations:
            return Dropped.LINE_WITHOUT_CITATION
        return Dropped.LINE_IN_ANOTHER_LANGUAGE if is_in_another_language(text, self.settings.language) else None

    def _citations(self, given: list[dict[str, Any]], cited: set[str]) -> Iterator[Citation]:
        for each in given:
            if not 1 <= each["message"] <= len(self.messages):
                self.dropped[Dropped.CITATION_UNKNOWN] += 1
                continue
            message = self.messages[each["message"] - 1]
            quote = verbatim(each["quote"], message.text)
            if quote is None:
                self.dropped[Dropped.CITATION_NOT_VERBATIM] += 1
            elif message.turn_id in cited:
                self.dropped[Dropped.CITATION_REPEATED] += 1
            else:
                cited.add(message.turn_id)
                yield Citation(message.turn_id, quote)
