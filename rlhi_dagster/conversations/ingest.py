"""Accept, repair or reject every row of a source.

What belongs here: the two passes over a source, the repairs of accepted rows (`Repair`), who counts as the same user, and the proof that
no row got lost. What does not: how rows are read (``sources``) and by which rules they are rejected (``verdicts``).

Two passes: the first judges the *whole* source and keeps digests and verdicts only, so that a repeat is found in whatever month its
original lies; the second reads the accepted rows of the months asked for, piece by piece. So memory grows with the number of rows, by a
few hundred bytes each, but not with their text.

Our choices, where the source leaves room:

- System messages are left out (they are no part of the dialogue, and turns have no place for them), and so are messages without text and
  what the assistant says before the user does. A conversation is rejected only where no words of a user, or no reply, are left.
- What the user said last and nobody answered is kept as the last word: it can be the complaint that ended the conversation. One that is
  too long or not legible is left out and costs the conversation nothing.
- A row that another one supersedes (a request whose history a later one repeats, a branch that was left) is neither accepted nor rejected.
- Of two rows with one id, or with the same messages from the same user, the earlier *accepted* one stays (by start, file, row number);
  a rejected row displaces nothing. WildChat's id is a hash of the content, so two users with word-for-word the same conversation count
  as one: ids must be unique downstream.
- A conversation whose row does not say who was connected is a user of its own.
- WildChat stores the time of the last turn: a conversation starts at its earliest message time if that is earlier, but never before the
  month of the stored time, so that the partition of a row can be told without reading its messages.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from rlhi_dagster.base.tables import CONVERSATIONS, EXPLICIT_FEEDBACK, QUARANTINE, SUPERSEDED, TIME
from rlhi_dagster.conversations import Repair, explicit_feedback, templates
from rlhi_dagster.conversations.entities import load as load_entities
from rlhi_dagster.conversations.redaction import KINDS, Entities, RedactionSettings, redact
from rlhi_dagster.conversations.sources import SourceRows, SourceSettings, is_plausible, month_counts
from rlhi_dagster.conversations.verdicts import EMPTY, ROW, UNFIT, verdicts

ROWS_AT_ONCE = 10_000
"""Conversations in memory at a time, with their messages."""

_BETWEEN_MERGED = "\n\n"
_KEPT = "u.*[ua]"
"""In role codes, what is left of a conversation: from the first user message to the last message, but for system and empty ones."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the rows of some months.

    Attributes:
        conversations: Accepted rows (`tables.CONVERSATIONS`).
        quarantine: Rejected rows (`tables.QUARANTINE`).
        superseded: Rows that another one supersedes (`tables.SUPERSEDED`).
        explicit_feedback: What was said outright of replies of the accepted rows (`tables.EXPLICIT_FEEDBACK`).
        rows_in: Rows of the source by month, for every month asked for.
    """

    conversations: pl.DataFrame
    quarantine: pl.DataFrame
    superseded: pl.DataFrame
    explicit_feedback: pl.DataFrame
    rows_in: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Judged:
    """The rows of some months, judged; the accepted ones not read yet.

    Attributes:
        settings: The source.
        accepted: ``source_file``, ``row_number``, ``month``, ``codes`` and ``template_id`` of accepted rows.
        quarantine: Rejected rows (`tables.QUARANTINE`).
        superseded: Rows that another one supersedes (`tables.SUPERSEDED`).
        rows_in: Rows of the source by month, for every month asked for.
        other_months: Rows of the source by month, for months not asked for.
        files: One line on the files that were read and left out.
    """

    settings: SourceSettings
    accepted: pl.DataFrame
    quarantine: pl.DataFrame
    superseded: pl.DataFrame
    rows_in: Mapping[str, int]
    other_months: Mapping[str, int]
    files: str
    _rows: SourceRows
    _state: Mapping[str, tuple[int, ...]]
    _salt: str
    _entities: Entities | None
    _now: datetime
    _feedback: list[pl.DataFrame] = field(default_factory=list)

    def conversations(self, rows_at_once: int = ROWS_AT_ONCE) -> Iterator[pl.DataFrame]:
        """Read the accepted rows, repaired, piece by piece (`tables.CONVERSATIONS`).

        Raises:
            RuntimeError: At the end, if a file of the source was replaced or written to since it was judged, or rows in and rows out differ
                in some month.
        """
        months = list(self.rows_in)
        delivered: Counter[str] = Counter()
        self._feedback.clear()
        given = self._rows.feedback().collect()
        for rows in self._rows.batches(lambda rows: rows.filter(pl.col("month").is_in(months)), rows_at_once):
            accepted = rows.drop("month").join(self.accepted, on=ROW, how="inner", maintain_order="left")
            found = _conversations(accepted, self.settings, self._salt, self._entities, self._now)
            delivered.update(dict(found.group_by("month").len().iter_rows()))
            if len(given):
                self._feedback.append(explicit_feedback.placed(accepted, found, given, self.settings.redaction, self._entities))
            yield found
        self._assert_unchanged()
        self._assert_conserved(delivered)

    @property
    def explicit_feedback(self) -> pl.DataFrame:
        """What was said outright of replies of the accepted rows (`tables.EXPLICIT_FEEDBACK`), once `conversations` has read them all."""
        return pl.concat([EXPLICIT_FEEDBACK.empty(), *self._feedback])

    def _assert_unchanged(self) -> None:
        """What was accepted by one pass and read by the other must be the same rows: verdicts are by file and row number."""
        try:
            now = self._rows.state()
        except FileNotFoundError as error:
            raise RuntimeError(f"source {self.settings.name}: {error.filename} went while it was read: launch again") from error
        if changed := sorted(file for file, state in self._state.items() if now.get(file) != state):
            raise RuntimeError(f"source {self.settings.name}: {', '.join(changed)} changed while it was read: launch again")

    def _assert_conserved(self, delivered: Mapping[str, int]) -> None:
        rejected, superseded = (dict(frame.group_by("month").len().iter_rows()) for frame in (self.quarantine, self.superseded))
        for month, rows in self.rows_in.items():
            out = delivered.get(month, 0), rejected.get(month, 0), superseded.get(month, 0)
            if sum(out) != rows:
                raise RuntimeError(
                    f"source {self.settings.name}, {month}: {rows} rows in, but {out[0]} accepted, {out[1]} quarantined and {out[2]}"
                    " superseded; have the files changed while they were read?"
                )


def judge(
    settings: SourceSettings,
    months: Sequence[str],
    salt: str,
    *,
    now: datetime | None = None,
    forgotten: Collection[str] = (),
    rows: SourceRows | None = None,
) -> Judged:
    """Accept or reject the rows of some months of a source.

    A row belongs to the month of its start; without a plausible start, to the month of the setting `assumed_start`.

    Args:
        settings: The source.
        months: Months to deliver, `YYYY-MM`; the others are looked at for repeats and templates only.
        salt: Secret key of the user fingerprints; the same salt gives the same user ids.
        now: Later times are impossible; the present by default.
        forgotten: User ids, made with the same salt, whose rows are rejected.
        rows: The rows of the source, or of a part of it; all by default.

    Returns:
        The verdicts. Template clusters are made over the whole source, so a month comes out the same whichever other months are asked
        for with it.

    Raises:
        ValueError: A month is malformed, the salt is empty, the source cannot be read, or entities are wanted and cannot be told.
    """
    now = now or datetime.now(UTC)
    malformed = [month for month in months if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month)]
    if malformed:
        raise ValueError(f"not a month in the form YYYY-MM: {', '.join(malformed)}")
    if not salt:
        raise ValueError("the salt of the user fingerprints is empty")
    entities = load_entities(settings.redaction.entities) if settings.redaction.entities else None
    rows = rows or SourceRows(settings, now=now)
    state = rows.state()
    counts = month_counts(rows)
    rows_in = {month: counts.get(month, 0) for month in sorted(set(months))}
    judged = verdicts(rows, settings, now, _is_forgotten(frozenset(forgotten), salt))
    is_wanted = pl.col("month").is_in(list(rows_in))
    accepted = judged.filter(pl.col("reason").is_null(), pl.col("superseded").is_null())
    in_template = templates.clusters(accepted.select(*templates.ORDER, "signature"))
    accepted = accepted.filter(is_wanted).select(*ROW, "month", "codes").join(in_template, on=ROW, how="left", maintain_order="left")
    quarantine, superseded = _set_apart(judged, is_wanted, settings)
    others = {month: count for month, count in counts.items() if month not in rows_in}
    return Judged(settings, accepted, quarantine, superseded, rows_in, others, rows.found.account, rows, state, salt, entities, now)


def ingest(
    settings: SourceSettings, months: Sequence[str], salt: str, *, now: datetime | None = None, forgotten: Collection[str] = ()
) -> Ingested:
    """`judge` the rows of some months and hold all that is accepted in memory; arguments and errors as there and of `Judged`."""
    judged = judge(settings, months, salt, now=now, forgotten=forgotten)
    conversations = pl.concat([CONVERSATIONS.empty(), *judged.conversations()])
    return Ingested(CONVERSATIONS.conform(conversations), judged.quarantine, judged.superseded, judged.explicit_feedback, judged.rows_in)


def user_id(user_key: str | None, conversation_id: str, salt: str) -> str:
    """Fingerprint a connection; a conversation without one is its own user.

    Keyed BLAKE2b, 16 bytes as hex: without the salt the key cannot be found by trying.
    """
    return _fingerprint("conversation", conversation_id, salt) if user_key is None else _fingerprint("connection", user_key, salt)


def _is_forgotten(forgotten: frozenset[str], salt: str) -> pl.Expr:
    """Whether a normalised row is of a forgotten user. Fingerprints are made only if there is one: they cost a hash a row."""
    if not forgotten:
        return pl.lit(value=False)

    def look(rows: pl.Series) -> pl.Series:
        names = rows.struct.unnest()
        is_known = [user_id(key, own_id or "", salt) in forgotten for key, own_id in names.iter_rows()]
        return pl.Series(is_known, dtype=pl.Boolean)

    return pl.struct("user_key", "conversation_id").map_batches(look, return_dtype=pl.Boolean(), is_elementwise=True)


def _fingerprint(kind: str, text: str, salt: str) -> str:
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()  # a salt of any length becomes a key of a permitted one
    return hashlib.blake2b(text.encode(), digest_size=16, key=key, person=kind.encode()).hexdigest()


def _set_apart(judged: pl.DataFrame, is_wanted: pl.Expr, settings: SourceSettings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rejected and the superseded rows of some months; no row has the id of a conversation of a forgotten user, or of one not there."""
    named = judged.filter(is_wanted).with_columns(pl.format("{}#{}", *ROW).alias("row_id"), pl.lit(settings.name).alias("source"))
    there = judged.filter(pl.col("superseded").is_null())["conversation_id"].drop_nulls().unique()
    superseded = named.filter(pl.col("superseded").is_not_null()).rename({"superseded": "cause"})
    known = superseded.with_columns(
        pl.when(pl.col("conversation_id").is_in(there.implode())).then("conversation_id").alias("conversation_id")
    )
    return QUARANTINE.conform(named.filter(pl.col("reason").is_not_null())), SUPERSEDED.conform(known)


def _conversations(rows: pl.DataFrame, settings: SourceSettings, salt: str, entities: Entities | None, now: datetime) -> pl.DataFrame:
    """Turn accepted rows into conversations: repaired, with fingerprints in place of connections."""
    rows = rows.with_row_index("row").with_columns(pl.when(pl.col("user_key").is_null()).then("conversation_id").alias("own_id"))
    connections = rows.select("user_key", "own_id").unique()
    ids = [user_id(key, own_id or "", salt) for key, own_id in connections.iter_rows()]
    connections = connections.with_columns(pl.Series("user_id", ids, dtype=pl.String))
    addresses = rows.select("address").drop_nulls().unique()
    ids = [_fingerprint("address", address, salt) for address in addresses["address"]]
    addresses = addresses.with_columns(pl.Series("address_id", ids, dtype=pl.String))

    repaired = _repaired(rows.select("row", "conversation_id", "codes", "messages"), settings.redaction, entities, now)
    joined = (
        rows.drop("messages")
        .join(connections, on=["user_key", "own_id"], how="left", nulls_equal=True)
        .join(addresses, on="address", how="left")
        .join(repaired, on="row", how="left")
    )
    stored = pl.coalesce("started_at", pl.lit(settings.assumed_start, TIME))
    month_start = pl.col("month").str.to_datetime("%Y-%m", time_unit="us", time_zone="UTC")
    earliest = pl.max_horizontal(month_start, pl.min_horizontal(stored, "earliest"))
    started_at = pl.when(pl.col("is_start_assumed")).then(stored).otherwise(earliest)
    return CONVERSATIONS.conform(
        joined.with_columns(
            started_at.alias("started_at"),
            pl.when(pl.col("is_start_assumed")).then(stored).otherwise(pl.max_horizontal(stored, "latest")).alias("ended_at"),
            pl.lit(settings.name).alias("source"),
        )
    )


def _repaired(rows: pl.DataFrame, redaction: RedactionSettings, entities: Entities | None, now: datetime) -> pl.DataFrame:
    """Redact and repair the message lists of accepted rows.

    Returns:
        ``row``, ``messages`` (strictly alternating), ``user_turns``, ``has_last_word``, ``repairs``, ``redactions``, ``earliest`` and
        ``latest`` (message times; null if there are none).
    """
    message = pl.col("messages").struct
    is_impossible = ~is_plausible(pl.col("sent_at"), now)
    flat = (
        rows.explode("messages")
        .select(
            "row",
            "conversation_id",
            message.field("role"),
            message.field("content"),
            message.field("sent_at"),
            pl.int_range(pl.len(), dtype=pl.Int32).over("row").alias("message_index"),
            pl.col("codes").str.slice(pl.int_range(pl.len()).over("row"), 1).alias("code"),
            pl.col("codes").str.find("u", literal=True).alias("first"),
        )
        .filter(pl.col("code").is_in(["u", "a"]), pl.col("message_index") >= pl.col("first"))
        .with_columns(pl.when(~is_impossible).then("sent_at").alias("sent_at"), is_impossible.fill_null(False).alias("is_cleared"))
    )
    content, kinds = redact(flat["content"], redaction, entities)
    redactions = flat.select("row", kinds.alias("redactions")).explode("redactions", empty_as_null=True).drop_nulls()
    flat = flat.with_columns(content)
    starts_run = (pl.col("row").ne(pl.col("row").shift()) | pl.col("role").ne(pl.col("role").shift())).fill_null(True)
    merged = (
        flat.with_columns(starts_run.cum_sum().alias("run"))
        .group_by("run", maintain_order=True)
        .agg(
            pl.col("row", "conversation_id", "message_index", "role").first(),
            pl.col("content").str.join(_BETWEEN_MERGED),
            pl.col("sent_at").max(),  # a request is complete with its last part
            pl.col("is_cleared").any(),
        )
        .with_columns(pl.format("{}:{}", "conversation_id", "message_index").alias("message_id"))
    )
    codes = pl.col("codes")
    kept = codes.str.extract(f"({_KEPT})")
    repairs: dict[Repair, pl.Expr] = {
        Repair.CLEARED_TIME: pl.col("is_cleared"),
        Repair.DROPPED_SYSTEM: codes.str.contains("s", literal=True),
        Repair.DROPPED_EMPTY: kept.str.contains(EMPTY, literal=True),
        Repair.DROPPED_GREETING: codes.str.contains("^[se]*a"),
        Repair.DROPPED_UNANSWERED: codes.str.contains(UNFIT, literal=True),
        Repair.MERGED_CONSECUTIVE: kept.str.contains("u[se]*u|a[se]*a"),
    }
    return (
        merged.group_by("row")
        .agg(
            pl.struct("message_id", "message_index", "role", "content", "sent_at").alias("messages"),
            (pl.col("role") == "assistant").sum().alias("user_turns"),
            (pl.col("role").last() == "user").alias("has_last_word"),
            pl.col("sent_at").min().alias("earliest"),
            pl.col("sent_at").max().alias("latest"),
            pl.col("is_cleared").any(),
        )
        .join(rows.select("row", "codes"), on="row")
        .join(redactions.group_by("row", maintain_order=True).agg("redactions"), on="row", how="left")
        .with_columns(
            pl.col("redactions").fill_null(pl.lit([], KINDS)),
            pl.concat_list(pl.when(applies).then(pl.lit(repair.value)) for repair, applies in repairs.items())
            .list.drop_nulls()
            .alias("repairs"),
        )
        .select("row", "messages", "user_turns", "has_last_word", "repairs", "redactions", "earliest", "latest")
    )
