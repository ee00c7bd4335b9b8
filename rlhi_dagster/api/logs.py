"""Logs from Python: what their follow-ups say, what users asked for, and the preference pairs that need no model.

What belongs here: from a file or a frame to the tables of the first stages, as frames of the same library. What does not: anything that a
language model is asked for (``models``, and the graph), and how each table is computed (``conversations``, ``feedback``, ``personas``,
``preferences``).
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import polars as pl

from rlhi_dagster.api.frames import like, to_polars
from rlhi_dagster.base.tables import FEEDBACK_LABELS, PERSONAS
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceSettings, detect_kind, month_counts
from rlhi_dagster.conversations.turns import timed, turns
from rlhi_dagster.feedback.labels.follow_ups import MESSAGE_INDEX, ClassifierLabeller, follow_ups

if TYPE_CHECKING:
    from rlhi_dagster.feedback.labels.agreement import Agreement

Frame = TypeVar("Frame")
_START = datetime(2023, 1, 1, tzinfo=UTC)
_FILE = "frame.parquet"
PAIR_COLUMNS = (
    "pair_id", "source", "evidence", "user_id", "turn_id", "asked_at", "persona", "prompt", "follow_up", "chosen", "rejected", "is_kept",
    "drop_reasons",
)  # fmt: skip
"""Columns of ``pairs``."""


@dataclass(frozen=True)
class Logs(Generic[Frame]):
    """Conversations that were read, and what became of every row.

    Attributes:
        ingested: The tables ``conversations``, ``quarantine``, ``superseded`` and ``explicit_feedback``, as polars frames
            with the columns that they have in a run.
        given: What was read; results are frames of the same library.
        persona_settings: Settings of a profile's section ``personas``.
    """

    ingested: Ingested
    given: Any = field(repr=False)
    persona_settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def account(self) -> str:
        """One line that accounts for every row of the source."""
        rows, accepted = sum(self.ingested.rows_in.values()), len(self.ingested.conversations)
        rejected, superseded = len(self.ingested.quarantine), len(self.ingested.superseded)
        return f"{rows:,} rows in = {accepted:,} accepted + {rejected:,} quarantined + {superseded:,} superseded"

    @cached_property
    def turns(self) -> pl.DataFrame:
        """A row for each user message with the reply to it (``tables.TURNS``)."""
        return turns(self.ingested.conversations)

    @cached_property
    def labels(self) -> pl.DataFrame:
        """What each follow-up says, by the classifier that comes with the project (``tables.FEEDBACK_LABELS``)."""
        from rlhi_dagster.engines.embedding import MiniLM
        from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier

        found = follow_ups(self.turns.lazy())
        return ClassifierLabeller(FeedbackClassifier.load(), MiniLM().embed).label(found) if len(found) else FEEDBACK_LABELS.empty()

    @cached_property
    def personas(self) -> pl.DataFrame:
        """Versions of persona lines (``tables.PERSONAS``), extracted by rule."""
        from rlhi_dagster.engines.embedding import MiniLM
        from rlhi_dagster.personas import extractive
        from rlhi_dagster.personas.settings import PersonaSettings

        if not len(self.turns):
            return PERSONAS.empty()
        told = self.ingested.conversations.lazy()
        settings = PersonaSettings(**self.persona_settings)
        return extractive.persona_lines(timed(self.turns.lazy(), told), self.labels.lazy(), told, settings, MiniLM().embed).lines


@overload
def read(
    source: str | Path | pl.DataFrame | pl.LazyFrame,
    *,
    kind: str | None = None,
    fields: Mapping[str, str] | None = None,
    salt: str | None = None,
    forgotten: Collection[str] = (),
    personas: Mapping[str, Any] | None = None,
) -> Logs[pl.DataFrame]: ...
@overload
def read(
    source: Frame,
    *,
    kind: str | None = None,
    fields: Mapping[str, str] | None = None,
    salt: str | None = None,
    forgotten: Collection[str] = (),
    personas: Mapping[str, Any] | None = None,
) -> Logs[Frame]: ...
def read(
    source: Any,
    *,
    kind: str | None = None,
    fields: Mapping[str, str] | None = None,
    salt: str | None = None,
    forgotten: Collection[str] = (),
    personas: Mapping[str, Any] | None = None,
) -> Logs[Any]:
    """Read conversations, all of them into memory; rows are accepted, repaired, redacted and quarantined as in a run.

    Args:
        source: A file, a folder, a glob or an ``hf://datasets/…`` path; or a frame of polars, pandas or datasets whose rows have one of
            the layouts of docs/reference/logs.md.
        kind: The layout; told by the columns if not given.
        fields: Columns under names of your own, by ours: ``{"messages": "transcript", "user": "customer"}``. It needs ``kind``.
        salt: Secret key of the user fingerprints. If not given it is RLHI_SALT, or else a new random one, and then fingerprints differ
            from one call to the next.
        forgotten: Fingerprints, made with this salt, of users who are left out.
        personas: Settings as in a profile's section ``personas``, such as ``{"extracts": ["wishes"], "max_lines": 4}``.

    Raises:
        ValueError: There is nothing, the layout is not known, or a setting is impossible.
    """
    salt = salt or os.environ.get("RLHI_SALT") or secrets.token_hex(16)
    if isinstance(source, str | Path):
        return Logs(_ingested(str(source), kind, fields, salt, forgotten), source, personas or {})
    rows = to_polars(source)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / _FILE
        try:
            rows.write_parquet(file)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ValueError(f"the frame cannot be read as a table: {error}") from error
        try:
            found = _ingested(str(file), kind, fields, salt, forgotten)
        except ValueError as error:
            raise ValueError(str(error).replace(str(file), "the frame")) from error
    named = pl.col("row_id").str.replace(_FILE, "row", literal=True)
    return Logs(
        Ingested(
            found.conversations,
            found.quarantine.with_columns(named),
            found.superseded.with_columns(named),
            found.explicit_feedback,
            found.rows_in,
        ),
        source,
        personas or {},
    )


def label(logs: Logs[Frame], *, text: bool = False) -> Frame:
    """Say of every follow-up what it says about the reply before it.

    Args:
        logs: From ``read``.
        text: Add what the label is about: ``request``, ``reply`` and ``follow_up``, after redaction.

    Returns:
        ``conversation_id`` and ``message_index`` (the source's own), ``user_id``, ``is_unanswered``, ``label``, ``probability``,
        ``reattempt_probability`` (that of ``reattempt_with_feedback``) and ``span`` (the words that ask for a change; null if none were
        found), sorted by conversation and message.
    """
    labels = logs.labels.with_columns(MESSAGE_INDEX)
    columns = [
        "conversation_id", "message_index", "user_id", "is_unanswered", "label", "probability", "reattempt_probability", "span",
    ]  # fmt: skip
    if text:
        said = follow_ups(logs.turns.lazy()).select("turn_id", "follow_up", request="previous_prompt", reply="previous_reply")
        labels = labels.join(said, on="turn_id")
        columns += ["request", "reply", "follow_up"]
    return _as_given(labels.select(columns).sort("conversation_id", "message_index"), logs)


def persona_lines(logs: Logs[Frame], *, at: datetime | None = None) -> Frame:
    """What users asked for: lines that are extracted by rule, each with the messages that say so.

    Args:
        logs: From ``read``.
        at: Only the lines that hold at this moment; all versions of all lines if not given.

    Returns:
        Columns of the table ``personas`` (docs/reference/tables.md), sorted by user, slot and time.
    """
    lines = logs.personas
    if at is not None:
        moment = at.astimezone(UTC)
        is_over = (pl.col("valid_until") < moment).fill_null(value=False)
        lines = lines.filter((pl.col("valid_from") < moment) & ~is_over)
    return _as_given(lines.sort("user_id", "slot", "valid_from"), logs)


def pairs(logs: Logs[Frame], *, min_probability: float = 0.5) -> Frame:
    """Preference pairs that the logs alone give: edits, regenerations and choices, and the logged replies to feedback.

    A model is asked for nothing, so of a criticised reply the preferred side is what the logged assistant said next; of real logs few of
    those are fit for training (docs/concepts/preferences.md). Rewrites by a model are made by the graph.

    Args:
        logs: From ``read``.
        min_probability: Least probability of ``reattempt_with_feedback`` for a follow-up to count.

    Returns:
        ``PAIR_COLUMNS``, sorted by ``pair_id``: each pair with the persona as it was at the request, kept or dropped with every reason
        against it. ``source`` is a ``rlhi_dagster.preferences.Source``; ``evidence`` is null of replies to feedback,
        ``follow_up`` of the others.
    """
    users = logs.turns.select(pl.col("user_id").unique(maintain_order=True), split=pl.lit("train"))
    found = pl.concat([_said_outright(logs, users), _replies_to_feedback(logs, users, min_probability)])
    return _as_given(found.sort("pair_id"), logs)


def agreement(logs: Logs[Any], gold: Any) -> Agreement:
    """How well labels agree with those that somebody else gave.

    Args:
        logs: From ``read``.
        gold: A CSV file, or a frame, with ``conversation_hash`` (``conversation_id`` is accepted, too), ``message_index``, ``label`` and,
            if somebody labelled a part twice, ``second_label``.

    Raises:
        ValueError: No given label is about one of these follow-ups, or a row of the file is no label.
    """
    from rlhi_dagster.feedback.labels import agreement as agreeing
    from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier

    if isinstance(gold, str | Path):
        given = agreeing.read_gold(Path(gold))
    else:
        frame = to_polars(gold)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "gold.csv"
            frame.rename({"conversation_id": "conversation_hash"}, strict=False).write_csv(file)
            given = agreeing.read_gold(file)
    labels = logs.labels.with_columns(MESSAGE_INDEX).rename({"conversation_id": "conversation_hash"})
    return agreeing.agreement(labels, given, FeedbackClassifier.load().card)


def _ingested(location: str, kind: str | None, fields: Mapping[str, str] | None, salt: str, forgotten: Collection[str]) -> Ingested:
    if fields and not kind:
        raise ValueError(f"fields names columns of a layout: say which, such as kind='messages' (given: {', '.join(fields)})")
    settings = SourceSettings.model_validate(
        {
            "name": "logs",
            "kind": kind or detect_kind(location),
            "location": location,
            "fields": dict(fields or {}),
            "assumed_start": _START,
            "assumed_model": "unknown",
        }
    )
    return ingest(settings, list(month_counts(settings)), salt, forgotten=forgotten)


def _as_given(found: pl.DataFrame, logs: Logs[Frame]) -> Frame:
    result: Frame = like(found, logs.given)
    return result


def _said_outright(logs: Logs[Any], users: pl.DataFrame) -> pl.DataFrame:
    from rlhi_dagster.personas.snapshots import personas_at
    from rlhi_dagster.preferences.explicit_pairs import explicit_pairs
    from rlhi_dagster.preferences.merge import OF_KIND
    from rlhi_dagster.preferences.settings import ExplicitPairSettings

    found = explicit_pairs(
        logs.ingested.explicit_feedback, logs.turns, logs.labels, users, logs.personas, ExplicitPairSettings(), personas_at
    )
    sources = {str(kind): str(source) for kind, source in OF_KIND.items()}
    return found.with_columns(
        source=pl.col("kind").replace_strict(sources, return_dtype=pl.String()), follow_up=pl.lit(None, pl.String())
    ).select(PAIR_COLUMNS)


def _replies_to_feedback(logs: Logs[Any], users: pl.DataFrame, min_probability: float) -> pl.DataFrame:
    from rlhi_dagster.engines.base import ChatAnswer
    from rlhi_dagster.personas.snapshots import personas_at
    from rlhi_dagster.preferences import Source, Strategy, rewrites
    from rlhi_dagster.preferences.pair_judge import RulePairJudge
    from rlhi_dagster.preferences.rewriter import Rewriter
    from rlhi_dagster.preferences.settings import RewriteSettings
    from rlhi_dagster.reconstruction.wildllamachat import user_messages, wildllamachat

    settings = RewriteSettings(min_feedback_probability=min_probability, inapplicable="drop", strategies=(Strategy.LOGGED,))
    nothing = ChatAnswer(None, "no model was asked", None, 0, 0)
    answers = {conversation: [nothing] * len(asked) for conversation, asked in user_messages(logs.turns).items()}
    judge, nobody = RulePairJudge(), Rewriter("nobody", lambda requests: [nothing for _ in requests], "instruction")
    chat = wildllamachat(logs.turns, logs.labels, answers, nobody.model, judge, min_probability)
    rows = rewrites.criticised(chat, logs.labels, users, logs.personas, settings, personas_at)
    found = rewrites.unscored_pairs(rewrites.rewrites(rows, nobody, judge), settings)
    asked = rows.select(pair_id="rewrite_id", follow_up="feedback")
    return (
        found.join(asked, on="pair_id", maintain_order="left")
        .with_columns(source=pl.lit(Source.REWRITES_LOGGED.value), evidence=pl.lit(None, pl.String()))
        .select(PAIR_COLUMNS)
    )
