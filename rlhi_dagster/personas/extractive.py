"""Persona lines taken from what users said, without a language model.

What belongs here: from messages to statements about a user, and from statements to versions that are valid one after the other. What
does not: the lexicon (``feedback.aspects``) and which domain a request belongs to (``domains``).

Three things are aggregated, each as far as a profile wants it:

- Wishes, a slot for each ``Aspect``. A message supports a wish if it is a re-attempt with feedback or a request that opens a task, and
  names how it wants an aspect of the answer. A wish makes a line once it was said in as many conversations as a profile wants, or to hold
  in general (``lasting``); from then on each supporting message makes a new version. It cites the messages of the run of the same wish
  since another one made the line.
- Languages of the user's conversations so far that have a fifth of them or more. The source tells a conversation's language from the
  whole of it, so it counts from the conversation's last message on.
- Domains of opening requests, those with the most requests so far.

A statement is made of messages at or before its moment, and its line is used strictly after. A user's lines at a moment are a function of
the messages before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import polars as pl

from rlhi_dagster.feedback import Aspect, Feedback
from rlhi_dagster.personas import lasting
from rlhi_dagster.personas.domains import Embed, domains_of
from rlhi_dagster.personas.versions import EXTRACTIVE, MAX_EVIDENCE, Citation, Dropped, Written, table, version

if TYPE_CHECKING:
    from rlhi_dagster.personas.settings import PersonaSettings

LANGUAGES, DOMAINS = "languages", "domains"
_SLOTS = (*(aspect.value for aspect in Aspect), DOMAINS, LANGUAGES)
"""Of lines supported at the same moment, the later in this order gives way first."""

LEAST_LANGUAGE_FRACTION = 0.2
"""Of the user's conversations, for a language to be named: single ones are often told wrongly."""
MIN_DOMAIN_REQUESTS = 3
MAX_DOMAINS = 3
_NO_LANGUAGE = {"", "unknown", "nolang"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a slot of a user says from a moment on; ``line`` is ``None`` if it says nothing any more."""

    user_id: str
    slot: str
    moment: datetime
    line: str | None
    citations: tuple[Citation, ...]


def persona_lines(
    turns: pl.LazyFrame, labels: pl.LazyFrame, conversations: pl.LazyFrame, settings: PersonaSettings, embed: Embed
) -> Written:
    """Build all versions of all users' persona lines.

    Args:
        turns: Rows of ``tables.TURNS``.
        labels: Rows of ``tables.FEEDBACK_LABELS``.
        conversations: Rows of ``tables.CONVERSATIONS``; their languages.
        settings: What is aggregated, and how much.
        embed: Sentence vectors of opening requests; not called unless domains are aggregated.

    Returns:
        Versions of one user and slot follow each other without overlap. Of more than ``max_lines`` lines at a moment those supported last
        stay; a line that gave way comes back when it is supported anew.
    """
    said: list[Statement] = []
    if "wishes" in settings.extracts:
        said += wishes(turns, labels, settings.wish_conversations)
    if LANGUAGES in settings.extracts:
        said += languages(turns, conversations, settings)
    if DOMAINS in settings.extracts:
        said += domains(turns, settings, embed)
    said.sort(key=lambda each: (each.user_id, each.moment, _SLOTS.index(each.slot)))
    dropped: Counter[str] = Counter()
    rows = [row for _, of_user in groupby(said, key=lambda each: each.user_id) for row in _bounded(of_user, settings, dropped)]
    return Written(table(rows), dropped)


@dataclass(slots=True)
class _Heard:
    """What was said of one wish of a slot since another made its line."""

    citations: list[Citation] = field(default_factory=list)
    conversations: set[str] = field(default_factory=set)
    is_general: bool = False

    def add(self, conversation_id: str, citation: Citation, *, is_general: bool) -> None:
        self.citations = [*self.citations, citation][-MAX_EVIDENCE:]
        self.conversations.add(conversation_id)
        self.is_general |= is_general


def wishes(turns: pl.LazyFrame, labels: pl.LazyFrame, least_conversations: int) -> Iterator[Statement]:
    """Wishes about answers; of wishes with the same time stamp the later one in the conversation stands.

    A wish that was not said often enough changes nothing: the line before it stays.
    """
    heard = [
        (user_id, request.aspect.value, asked_at, request.line, conversation_id, Citation(turn_id, request.span), is_general)
        for user_id, asked_at, conversation_id, turn_id, prompt, opens_task in speaking(turns, labels).iter_rows()
        for request, is_general in lasting.about_answers(prompt, opens_task=opens_task)
    ]
    heard.sort(key=lambda wish: wish[:2])
    for (user_id, slot), said in groupby(heard, key=lambda wish: wish[:2]):
        of_line: dict[str, _Heard] = {}
        for moment, same in groupby(said, key=lambda wish: wish[2]):
            now = list(same)
            for *_, line, conversation_id, citation, is_general in now:
                of_line.setdefault(line, _Heard()).add(conversation_id, citation, is_general=is_general)
            lasts = (
                line
                for _, _, _, line, *_ in reversed(now)
                if of_line[line].is_general or len(of_line[line].conversations) >= least_conversations
            )
            if (lasting_line := next(lasts, None)) is not None:
                of_line = {lasting_line: of_line[lasting_line]}
                yield Statement(user_id, slot, moment, lasting_line, tuple(of_line[lasting_line].citations))


def speaking(turns: pl.LazyFrame, labels: pl.LazyFrame) -> pl.DataFrame:
    """Messages that can support a wish, in the order they were sent; a request that a user sends again speaks once."""
    columns = ["user_id", "asked_at", "conversation_id", "turn", "turn_id", "prompt"]
    labelled = turns.join(labels.select("turn_id", "label"), on="turn_id", how="left")
    is_feedback = pl.col("label") == Feedback.REATTEMPT_WITH_FEEDBACK.value
    opens_task = (pl.col("turn") == 1) | (pl.col("label") == Feedback.NEW_REQUEST.value)
    said = labelled.filter(opens_task | (is_feedback & (pl.col("turn") > 1))).select(*columns, opens_task=opens_task.fill_null(value=False))
    ordered = said.sort("user_id", "asked_at", "conversation_id", "turn")
    is_first = ~pl.col("opens_task") | pl.struct("user_id", "prompt", "opens_task").is_first_distinct()
    return ordered.filter(is_first).select("user_id", "asked_at", "conversation_id", "turn_id", "prompt", "opens_task").collect()


def languages(turns: pl.LazyFrame, conversations: pl.LazyFrame, settings: PersonaSettings) -> Iterator[Statement]:
    """Languages of the user's conversations, once they are more than the one that the lines are written in."""
    given = pl.col("language").str.strip_chars()
    known = conversations.filter(given.is_not_null() & ~given.str.to_lowercase().is_in(_NO_LANGUAGE)).select("conversation_id", given)
    of_conversation = turns.group_by("conversation_id", "user_id").agg(
        pl.col("asked_at").max(),
        pl.col("turn_id").sort_by("turn").first(),  # the opening request stands for the conversation
    )
    rows = of_conversation.join(known, on="conversation_id").sort("user_id", "asked_at", "conversation_id").collect()
    for user_id, told in groupby(rows.select("user_id", "asked_at", "language", "turn_id").iter_rows(), key=lambda row: row[0]):
        counts, latest, line = Counter[str](), dict[str, str](), None
        for moment, same in groupby(told, key=lambda row: row[1]):
            for *_, language, turn_id in same:
                counts[language] += 1
                latest[language] = turn_id
            least = LEAST_LANGUAGE_FRACTION * counts.total()
            named = [language for language, count in counts.most_common() if count >= least]
            said, named = _listed("Writes in {}.", named, settings.max_line_characters)
            said = None if named == [settings.language] else said
            if said != line:
                line = said
                yield Statement(user_id, LANGUAGES, moment, line, tuple(Citation(latest[language], None) for language in named))


def domains(turns: pl.LazyFrame, settings: PersonaSettings, embed: Embed) -> Iterator[Statement]:
    """What the user asks about; repeated requests count once."""
    opening = turns.filter(pl.col("turn") == 1).sort("user_id", "asked_at", "conversation_id")
    distinct = opening.unique(["user_id", "prompt"], keep="first", maintain_order=True)
    enough = distinct.filter(pl.len().over("user_id") >= MIN_DOMAIN_REQUESTS)
    asked = enough.select("user_id", "asked_at", "turn_id", "prompt").collect()
    told = zip(asked.iter_rows(), domains_of(asked["prompt"].to_list(), embed), strict=True)
    of_domains = ((user_id, moment, domain, turn_id) for (user_id, moment, turn_id, _), domain in told if domain)
    for user_id, rows in groupby(of_domains, key=lambda row: row[0]):
        cited, line = dict[str, list[str]](), None
        for moment, same in groupby(rows, key=lambda row: row[1]):
            for *_, domain, turn_id in same:
                cited.setdefault(domain, []).append(turn_id)
            often = sorted((-len(ids), domain) for domain, ids in cited.items() if len(ids) >= MIN_DOMAIN_REQUESTS)
            said, named = _listed("Often asks about {}.", [domain for _, domain in often[:MAX_DOMAINS]], settings.max_line_characters)
            if said != line:
                line = said
                ids = (turn_id for domain in named for turn_id in cited[domain][-MIN_DOMAIN_REQUESTS:])
                yield Statement(user_id, DOMAINS, moment, line, tuple(Citation(turn_id, None) for turn_id in ids))


def _listed(form: str, names: Sequence[str], max_characters: int) -> tuple[str | None, list[str]]:
    """A line that lists the first names, as many as fit, in alphabetical order, so that it does not change with their ranks."""
    for count in range(len(names), 0, -1):
        kept = sorted(names[:count])
        line = form.format(" and ".join(filter(None, [", ".join(kept[:-1]), kept[-1]])))
        if len(line) <= max_characters:
            return line, kept
    return None, []


def _bounded(said: Iterable[Statement], settings: PersonaSettings, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Versions of one user's lines from its statements in the order of time, at most ``max_lines`` at a moment."""
    current: dict[str, Statement] = {}
    for moment, same in groupby(said, key=lambda each: each.moment):
        for each in same:
            if each.slot in current:
                yield _ended(current.pop(each.slot), moment)
            if each.line is not None and len(each.line) > settings.max_line_characters:
                dropped[Dropped.LINE_TOO_LONG] += 1
            elif each.line is not None:
                current[each.slot] = each
        while len(current) > settings.max_lines:
            oldest = min(current.values(), key=lambda each: (each.moment, -_SLOTS.index(each.slot)))
            dropped[Dropped.LINE_GAVE_WAY] += 1
            del current[oldest.slot]
            if oldest.moment < moment:
                yield _ended(oldest, moment)
    for each in current.values():
        yield _ended(each, None)


def _ended(each: Statement, until: datetime | None) -> dict[str, Any]:
    assert each.line is not None, "a statement that says nothing is never current"
    return version(each.user_id, each.slot, each.line, (each.moment, until), each.citations, EXTRACTIVE)
