"""Labels and re-attempt rates of a source file, without Dagster: what ``rlhi label`` and ``rlhi rates`` do.

What belongs here: from a location to labelled follow-ups under the source's own ids, the output file, and given labels as the rates take
them. What does not: ingestion itself (``conversations``), how a label is found (``labels``), how good labels are (``agreement``), and the
rates (``rates``, ``readings``).

Rows are accepted, repaired and quarantined as in a run. The whole source is held in memory. User ids, times and the model's name play no
part in a label and are not written, so fixed ones do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import polars as pl

from rlhi_dagster.base.lake import OURS, check_writable
from rlhi_dagster.base.sheets import to_sheet
from rlhi_dagster.conversations.ingest import ingest
from rlhi_dagster.conversations.shape import entries
from rlhi_dagster.conversations.sources import SourceSettings, detect_kind, month_counts, source_files
from rlhi_dagster.conversations.sources.files import look
from rlhi_dagster.conversations.turns import turns
from rlhi_dagster.feedback.labels.follow_ups import MESSAGE_INDEX, Labeller, follow_ups

COLUMNS = ("conversation_hash", "message_index", "is_unanswered", "label", "probability")
"""Columns of the output file."""

TEXTS = ("request", "reply", "follow_up")
"""Further columns of it, if asked for."""
ENDINGS = (".csv", ".parquet")
AT_ONCE = 512
"""Follow-ups between two reports of progress."""

_SALT = "user ids are not written"
_ASSUMED_START = datetime(2023, 1, 1, tzinfo=UTC)


class NothingAcceptedError(ValueError):
    """The source has rows, and each of them is quarantined; the message says why, and ``rlhi`` ends with a code of its own."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class FollowUps:
    """The follow-ups of a source and what became of its rows.

    Attributes:
        frame: As ``labels.follow_ups`` returns them.
        conversations: Rows of ``tables.CONVERSATIONS``.
        rows_in: Rows of the source.
        accepted: Conversations among them.
        quarantined: Rejected rows by reason, the most frequent first.
        superseded: Rows that another one supersedes.
        files: One line on the files that were read and left out.
        turns: Rows of ``tables.TURNS``.
        quarantine: Rows of ``tables.QUARANTINE``.
        explicit_feedback: Rows of ``tables.EXPLICIT_FEEDBACK``.
    """

    frame: pl.DataFrame
    conversations: pl.DataFrame
    rows_in: int
    accepted: int
    quarantined: dict[str, int]
    superseded: int
    files: str
    turns: pl.DataFrame
    quarantine: pl.DataFrame
    explicit_feedback: pl.DataFrame

    @property
    def redacted(self) -> str:
        """What was replaced in messages, the most frequent first."""
        counts = entries(self.conversations.lazy().select("redactions"))
        return ", ".join(f"{kind} {times:,}" for kind, times in counts.items()) or "nothing"

    @property
    def account(self) -> str:
        """One line that accounts for every row."""
        reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in self.quarantined.items())
        rejected = sum(self.quarantined.values())
        others = f" + {self.superseded:,} superseded" if self.superseded else ""
        return (
            f"{self.rows_in:,} rows in = {self.accepted:,} accepted + {rejected:,} quarantined{f' ({reasons})' if reasons else ''}{others}"
        )


def check_output(out: Path, location: str) -> None:
    """Raise ValueError if ``out`` cannot be the output for the source at ``location``."""
    if out.suffix.lower() not in ENDINGS:
        raise ValueError(f"{out}: the output must end in {' or '.join(ENDINGS)}")
    if out.is_dir():
        raise ValueError(f"{out} is a folder")
    check_writable(out)
    if out.resolve() in {Path(file).resolve() for file in source_files(_settings(location))}:
        raise ValueError(f"{out} is a file of the source")


def read_follow_ups(location: str, salt: str = _SALT, forgotten: Collection[str] = ()) -> FollowUps:
    """Ingest every month of a source.

    Args:
        location: A file, a folder, a glob or an ``hf://datasets/…`` path of a supported layout.
        salt: Of the user ids; needed where some users are to be left out.
        forgotten: User ids, made with this salt, whose rows are quarantined.

    Raises:
        ValueError: There is nothing at the location, or its layout is not known.
        NothingAcceptedError: No row is accepted.
    """
    settings = _settings(location)
    read = ingest(settings, list(month_counts(settings)), salt, forgotten=forgotten)
    reasons = read.quarantine.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    said = turns(read.conversations)
    found = FollowUps(
        follow_ups(said.lazy()),
        read.conversations,
        sum(read.rows_in.values()),
        len(read.conversations),
        dict(reasons.iter_rows()),
        len(read.superseded),
        look(location).account,
        said,
        read.quarantine,
        read.explicit_feedback,
    )
    if found.rows_in and not found.accepted:
        raise NothingAcceptedError(f"no row of {location} is accepted: {found.account}")
    return found


def label_follow_ups(frame: pl.DataFrame, labeller: Labeller, report: Callable[[int, int], None] | None = None) -> pl.DataFrame:
    """Label follow-ups.

    Args:
        frame: As ``labels.follow_ups`` returns them.
        labeller: Who labels.
        report: Told how many are done, and of how many.

    Returns:
        ``COLUMNS`` and ``reattempt_probability``, sorted by conversation and message.
    """
    parts = [labeller.label(frame.clear())]
    for start in range(0, len(frame), AT_ONCE):
        parts.append(labeller.label(frame.slice(start, AT_ONCE)))
        if report:
            report(min(start + AT_ONCE, len(frame)), len(frame))
    return (
        pl.concat(parts)
        .select(
            pl.col("conversation_id").alias("conversation_hash"),
            MESSAGE_INDEX,
            "is_unanswered",
            "label",
            "probability",
            "reattempt_probability",
        )
        .sort("conversation_hash", "message_index")
    )


def texts(frame: pl.DataFrame) -> pl.DataFrame:
    """What labels are about: conversation_hash, message_index, request, reply and follow_up, after redaction.

    Args:
        frame: As ``labels.follow_ups`` returns them.
    """
    return frame.select(
        MESSAGE_INDEX, "follow_up", conversation_hash="conversation_id", request="previous_prompt", reply="previous_reply"
    ).select("conversation_hash", "message_index", *TEXTS)


def given_labels(found: FollowUps, given: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Put given labels to a source's follow-ups, as ``rates.reattempt_rates`` takes both.

    Args:
        found: The source.
        given: ``conversation_hash``, ``message_index`` and ``label``.

    Returns:
        The conversations of which every follow-up has a label, single-turn ones included, and the labels of their follow-ups.

    Raises:
        ValueError: No label is about one of the follow-ups.
    """
    labels = (
        found.frame.select("conversation_id", "turn", MESSAGE_INDEX)
        .join(given.rename({"conversation_hash": "conversation_id"}), on=["conversation_id", "message_index"], how="left")
        .select("conversation_id", "turn", "label")
    )
    if not labels["label"].count():
        raise ValueError(f"none of the {len(given):,} given labels is about one of the {len(labels):,} follow-ups of the source")
    partly = labels.filter(pl.col("label").is_null()).select("conversation_id").unique()
    return found.conversations.join(partly, on="conversation_id", how="anti"), labels.join(partly, on="conversation_id", how="anti")


def write(labels: pl.DataFrame, out: Path) -> None:
    """Write the ``COLUMNS``, and ``TEXTS`` if there, as CSV or Parquet, by the ending of ``out``; it is replaced at once or not at all."""
    partial = out.with_name(f".{out.name}.{uuid4().hex}.partial")
    rows = labels.select(*COLUMNS, *(name for name in TEXTS if name in labels.columns))
    try:
        if out.suffix.lower() == ".csv":
            to_sheet(rows).write_csv(partial)
        else:
            rows.write_parquet(partial, metadata=OURS)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _settings(location: str) -> SourceSettings:
    if not location.strip():
        raise ValueError(f"{location!r} is no location: give a file, a folder, a glob or an hf:// path")
    kind = detect_kind(location)
    return SourceSettings(name=location, kind=kind, location=location, assumed_start=_ASSUMED_START, assumed_model="unknown")
