"""The prompts of corpora whose diversity is compared: preference sets and conversation logs.

What belongs here: from a location to distinct opening requests, with every row that gives none counted and named. What does not: the
measures (``diversity``, ``entropies``), and how conversations are read (``conversations``).

Our choices, the same for every corpus. A prompt context is the opening request, the first thing a person says. The paper says
"contexts", which could also mean all that comes before the last reply: the other `Context`, which a run leaves out, because the encoder
reads 256 word pieces only, so it mostly adds the beginning of a model's reply, at twice the cost. A prompt counts once, however many rows
carry it: preference sets repeat a prompt for every pair of replies. Where a corpus knows its users, a prompt belongs to the first of
them (by id); where it does not, to itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import polars as pl
from pydantic import BaseModel, Field

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.ingest import ingest
from rlhi_dagster.conversations.sources import SourceSettings, detect_kind, files, month_counts
from rlhi_dagster.conversations.sources.decoded import source_values
from rlhi_dagster.conversations.sources.records import Broken

NO_OPENING_REQUEST = "no_opening_request"
"""A row whose text does not begin with something that a person says."""

BROKEN = pl.Schema({"file": pl.String(), "row_number": pl.Int64(), "reason": pl.String(), "detail": pl.String()})
_JOINT = "\n\n"
_SALT = "user ids only group prompts"
_ASSUMED_START = datetime(2023, 1, 1, tzinfo=UTC)
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HELPSTEER_TURN = re.compile(r"\n<extra_id_1>(?:User|Assistant)[ \t]*\n")


class CorpusKind(StrEnum):
    """How a corpus is laid out."""

    HH_RLHF = "hh_rlhf"
    """Anthropic/hh-rlhf: `chosen` and `rejected`, each a dialogue with the marks `Human:` and `Assistant:`."""
    HELPSTEER2 = "helpsteer2"
    """nvidia/HelpSteer2: `prompt` and `response`; later turns of a prompt begin with `<extra_id_1>`."""
    CONVERSATIONS = "conversations"
    """Any kind of `conversations.sources`, recognised by its columns; rows are accepted and quarantined as in a run."""


class Context(StrEnum):
    """What of a conversation is its prompt context."""

    OPENING_REQUEST = "opening_request"
    """The first user message."""
    CONVERSATION = "conversation"
    """Every message before the last reply, joined by blank lines."""


class CorpusSettings(BaseModel, frozen=True, extra="forbid"):
    """A corpus to compare the source with."""

    name: str = Field(min_length=1, description="Name of the corpus, as it appears in the column `corpus`.")
    kind: CorpusKind = Field(description="Layout of the rows.")
    location: str = Field(
        min_length=1,
        description="Parquet or JSON lines (.jsonl, .jsonl.gz, .jsonl.zst): path, folder, glob, or `hf://datasets/…` path or glob.",
    )


@dataclass(frozen=True, slots=True)
class Corpus:
    """The prompts of a corpus and what became of its rows.

    Attributes:
        name: Name of the corpus.
        prompts: ``prompt`` (distinct) and ``user_id``, sorted by both.
        rows: Rows read.
        broken: Rows that give no prompt: ``file``, ``row_number`` (0-based), ``reason``, ``detail``; never their text.
    """

    name: str
    prompts: pl.DataFrame
    rows: int
    broken: pl.DataFrame

    @property
    def account(self) -> str:
        """One line that accounts for every row."""
        counts = self.broken.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
        reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in counts.iter_rows())
        return f"{self.name}: {self.rows:,} rows, {len(self.broken):,} without a prompt{f' ({reasons})' if reasons else ''}, " + (
            f"{len(self.prompts):,} distinct prompts"
        )


def read(settings: CorpusSettings, context: Context = Context.OPENING_REQUEST) -> Corpus:
    """Read a corpus.

    Raises:
        ValueError: No file matches, a file lacks a column, or no row gives a prompt; the message names the location.
    """
    if settings.kind is CorpusKind.CONVERSATIONS:
        return _conversations(settings, context)
    column, said = _PREFERENCE_SETS[settings.kind]
    found, broken, rows = [], [], 0
    for file in files.find(settings.location):
        for number, texts, reason, detail in read_rows(file, (column,)):
            rows += 1
            messages = said(texts[0]) if texts else []
            if messages:
                found.append(messages[0] if context is Context.OPENING_REQUEST else _JOINT.join(messages))
            else:
                broken.append((file, number, reason or NO_OPENING_REQUEST, detail))
    if not found:
        raise ValueError(f"{settings.name}: no row of {settings.location} gives a prompt; is it of the kind {settings.kind}?")
    prompts = distinct(pl.DataFrame({"prompt": found}, schema={"prompt": pl.String()}))
    return Corpus(settings.name, prompts, rows, pl.DataFrame(broken, schema=BROKEN, orient="row"))


def detect(location: str) -> CorpusKind:
    """Tell the kind of a corpus from the columns of its first file.

    Raises:
        ValueError: Nothing is at ``location``.
    """
    first = next((value for file in files.find(location) for value in source_values(file) if isinstance(value, dict)), {})
    return next((kind for kind, needed in _COLUMNS.items() if first.keys() >= set(needed)), CorpusKind.CONVERSATIONS)


def distinct(prompts: pl.DataFrame) -> pl.DataFrame:
    """Each prompt once, without the white space around it; without ``user_id`` each is its own user. Sorted, so independent of order."""
    stripped = prompts.with_columns(pl.col("prompt").str.strip_chars())
    if "user_id" not in stripped.columns:
        unique = stripped.select("prompt").unique().sort("prompt")
        return unique.with_columns(pl.int_range(pl.len()).cast(pl.String).str.zfill(9).alias("user_id"))
    return stripped.select("prompt", "user_id").sort("user_id", "prompt").unique("prompt", keep="first", maintain_order=True)


def turns_of_dialogue(text: str) -> list[tuple[str, str]]:
    r"""Who speaks (``Human`` or ``Assistant``) and what, of a dialogue ``\n\nHuman: …\n\nAssistant: …``; none if it opens with neither."""
    before, *marked = _HH_TURN.split(text)
    return [] if before.strip() else list(zip(marked[::2], (message.strip() for message in marked[1::2]), strict=True))


def said_in_dialogue(text: str) -> list[str]:
    """Messages before the last reply of a dialogue; none unless a person opens it and gets a reply."""
    turns = turns_of_dialogue(text)
    replies = [place for place, (speaker, _) in enumerate(turns) if speaker == "Assistant"]
    if not replies or turns[0][0] != "Human" or not turns[0][1]:
        return []
    return [message for _, message in turns[: replies[-1]]]


def said_in_prompt(text: str) -> list[str]:
    r"""Messages of a prompt ``…\n<extra_id_1>Assistant\n…\n<extra_id_1>User\n…``; none if it does not open with a text."""
    messages = [message.strip() for message in _HELPSTEER_TURN.split(text)]
    return messages if messages[0] else []


_PREFERENCE_SETS: Mapping[CorpusKind, tuple[str, Callable[[str], list[str]]]] = {
    CorpusKind.HH_RLHF: ("chosen", said_in_dialogue),
    CorpusKind.HELPSTEER2: ("prompt", said_in_prompt),
}
_COLUMNS = {CorpusKind.HH_RLHF: ("chosen", "rejected"), CorpusKind.HELPSTEER2: ("prompt", "response")}


def read_rows(file: str, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...] | None, str | None, str | None]]:
    """Position and the texts of ``columns``; for rows that lack one or cannot be read ``None``, the reason and its detail."""
    for number, value in enumerate(source_values(file)):
        if isinstance(value, Broken):
            yield number, None, value.reason.value, value.detail
            continue
        texts = [value.get(column) if isinstance(value, dict) else None for column in columns]
        missing = next((column for column, text in zip(columns, texts, strict=True) if not isinstance(text, str)), None)
        if missing is None:
            yield number, tuple(map(str, texts)), None, None
        elif not isinstance(value, dict) or value.get(missing) is not None:
            yield number, None, Reason.MISTYPED_FIELD.value, f"{missing} is no text"
        else:
            yield number, None, Reason.MISSING_FIELD.value, missing


def _conversations(settings: CorpusSettings, context: Context) -> Corpus:
    source = SourceSettings(
        name=settings.name,
        kind=detect_kind(settings.location),
        location=settings.location,
        assumed_start=_ASSUMED_START,
        assumed_model="unknown",
    )
    found = ingest(source, list(month_counts(source)), _SALT)
    said = pl.col("messages").list.eval(pl.element().struct.field("content"))
    # What comes before the last reply, without the last word.
    prompt = said.list.first() if context is Context.OPENING_REQUEST else said.list.head(2 * pl.col("user_turns") - 1).list.join(_JOINT)
    prompts = distinct(found.conversations.select("user_id", prompt.alias("prompt")))
    broken = found.quarantine.select(pl.col("source_file").alias("file"), "row_number", "reason", "detail")
    return Corpus(settings.name, prompts, sum(found.rows_in.values()), broken)
