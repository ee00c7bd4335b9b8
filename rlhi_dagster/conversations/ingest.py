"""Accept, repair or reject every row of a source.

What belongs here: the two passes over a source, the repairs of accepted rows (`Repair`), who counts as the same user, and the proof that
no row got lost. What does not: how rows are read (``sources``) and by which rules they are rejected (``verdicts``).

Two passes: the first judges the *whole* source and keeps digests and verdicts only, so that a repeat is found in whatever month its
original lies and memory does not grow with the text; the second reads the messages of the accepted rows of the months asked for.

Our choices, where the source leaves room:

- A leading system message is left out (it is no part of the dialogue, and turns have no place for it); elsewhere it is out of order.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from rlhi_dagster.conversations import Repair, templates
from rlhi_dagster.conversations.sources import SourceSettings, is_plausible, month_counts, read
from rlhi_dagster.conversations.verdicts import ROW, verdicts
from rlhi_dagster.tables import CONVERSATIONS, QUARANTINE, TIME

_BETWEEN_MERGED = "\n\n"


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the rows of some months.

    Attributes:
        conversations: Accepted rows (`tables.CONVERSATIONS`).
        quarantine: Rejected rows (`tables.QUARANTINE`).
        rows_in: Rows of the source by month, for every month asked for.
    """

    conversations: pl.DataFrame
    quarantine: pl.DataFrame
    rows_in: Mapping[str, int]


def ingest(settings: SourceSettings, months: Sequence[str], salt: str, *, now: datetime | None = None) -> Ingested:
    """Accept, repair or reject the rows of some months of a source.

    A row belongs to the month of its start; without a plausible start, to the month of the setting `assumed_start`.

    Args:
        settings: The source.
        months: Months to deliver, `YYYY-MM`; the others are looked at for repeats and templates only.
        salt: Secret key of the user fingerprints; the same salt gives the same user ids.
        now: Later times are impossible; the present by default.

    Returns:
        Accepted and rejected rows. Template clusters are counted over the whole source, so a month comes out the same whichever
        other months are asked for with it.

    Raises:
        ValueError: A month is malformed, the salt is empty, or the source cannot be read.
        RuntimeError: Rows in and rows out differ in some month.
    """
    now = now or datetime.now(UTC)
    malformed = [month for month in months if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", month)]
    if malformed:
        raise ValueError(f"not a month in the form YYYY-MM: {', '.join(malformed)}")
    if not salt:
        raise ValueError("the salt of the user fingerprints is empty")
    wanted = sorted(set(months))
    counts = month_counts(settings, now=now)
    rows_in = {month: counts.get(month, 0) for month in wanted}

    judged = verdicts(settings, now)
    accepted = judged.filter(pl.col("reason").is_null())
    crowded = accepted.group_by("head_hash").len().filter(pl.col("head_hash").is_not_null(), pl.col("len") >= templates.MIN_CONVERSATIONS)
    keys = accepted.filter(pl.col("month").is_in(wanted)).select(*ROW, "codes")
    quarantine = _quarantine(judged.filter(pl.col("month").is_in(wanted)), settings)
    del judged, accepted  # a row of each for the whole source

    def accepted_rows(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.filter(pl.col("month").is_in(wanted)).join(keys.lazy(), on=ROW, how="inner")

    conversations = _conversations(read(settings, accepted_rows, now=now).sort(ROW), settings, salt, crowded["head_hash"], now)
    _assert_conserved(settings, rows_in, conversations, quarantine)
    return Ingested(conversations, quarantine, rows_in)


def user_id(user_key: str | None, conversation_id: str, salt: str) -> str:
    """Fingerprint a connection; a conversation without one is its own user.

    Keyed BLAKE2b, 16 bytes as hex: without the salt the key cannot be found by trying.
    """
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()  # a salt of any length becomes a key of a permitted one
    kind, text = (b"conversation", conversation_id) if user_key is None else (b"connection", user_key)
    return hashlib.blake2b(text.encode(), digest_size=16, key=key, person=kind).hexdigest()


def _quarantine(judged: pl.DataFrame, settings: SourceSettings) -> pl.DataFrame:
    return QUARANTINE.conform(
        judged.filter(pl.col("reason").is_not_null()).with_columns(
            pl.format("{}#{}", *ROW).alias("row_id"), pl.lit(settings.name).alias("source")
        )
    )


def _conversations(rows: pl.DataFrame, settings: SourceSettings, salt: str, crowded: pl.Series, now: datetime) -> pl.DataFrame:
    """Turn accepted rows into conversations: repaired, with user ids and template clusters."""
    opening = pl.col("messages").list.get(pl.col("codes").str.starts_with("s").cast(pl.Int64)).struct.field("content")
    rows = rows.with_row_index("row").with_columns(templates.head(opening).alias("head"))
    in_cluster = rows.select("row", "head").filter(pl.col("head").is_not_null(), pl.col("head").hash().is_in(crowded.implode()))
    clusters = in_cluster.join(templates.digests(in_cluster["head"]), on="head").select("row", "template_id")

    connections = rows.select("user_key", pl.when(pl.col("user_key").is_null()).then("conversation_id").alias("own_id")).unique()
    ids = [user_id(key, own_id or "", salt) for key, own_id in connections.iter_rows()]
    connections = connections.with_columns(pl.Series("user_id", ids, dtype=pl.String))

    joined = (
        rows.drop("messages", "head")
        .with_columns(pl.when(pl.col("user_key").is_null()).then("conversation_id").alias("own_id"))
        .join(connections, on=["user_key", "own_id"], how="left", nulls_equal=True)
        .join(clusters, on="row", how="left")
        .join(_repaired(rows.select("row", "conversation_id", "codes", "messages"), now), on="row", how="left")
    )
    stored = pl.coalesce("started_at", pl.lit(settings.assumed_start, TIME))
    month_start = pl.col("month").str.to_datetime("%Y-%m", time_unit="us", time_zone="UTC")
    earliest = pl.max_horizontal(month_start, pl.min_horizontal(stored, "earliest"))
    return CONVERSATIONS.conform(
        joined.with_columns(
            pl.when(pl.col("is_start_assumed")).then(stored).otherwise(earliest).alias("started_at"),
            pl.lit(settings.name).alias("source"),
        )
    )


def _repaired(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Repair the message lists of accepted rows.

    Returns:
        ``row``, ``messages`` (strictly alternating), ``user_turns``, ``repairs`` and ``earliest`` (message time; null if there is none).
    """
    message = pl.col("messages").struct
    is_impossible = ~is_plausible(pl.col("sent_at"), now)
    flat = (
        rows.with_columns(pl.col("codes").str.replace("u+$", "").str.len_bytes().alias("end"))
        .explode("messages")
        .select(
            "row",
            "conversation_id",
            "end",
            message.field("role"),
            message.field("content"),
            message.field("sent_at"),
            pl.int_range(pl.len(), dtype=pl.Int32).over("row").alias("message_index"),
        )
        .filter(pl.col("role") != "system", pl.col("message_index") < pl.col("end"))
        .with_columns(pl.when(~is_impossible).then("sent_at").alias("sent_at"), is_impossible.fill_null(False).alias("is_cleared"))
    )
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
    answered = codes.str.replace("u+$", "")
    repairs: dict[Repair, pl.Expr] = {
        Repair.CLEARED_TIME: pl.col("is_cleared"),
        Repair.DROPPED_SYSTEM: codes.str.starts_with("s"),
        Repair.DROPPED_UNANSWERED: codes.str.ends_with("u"),
        Repair.MERGED_CONSECUTIVE: answered.str.contains("uu|aa"),
    }
    return (
        merged.group_by("row")
        .agg(
            pl.struct("message_id", "message_index", "role", "content", "sent_at").alias("messages"),
            (pl.col("role") == "user").sum().alias("user_turns"),
            pl.col("sent_at").min().alias("earliest"),
            pl.col("is_cleared").any(),
        )
        .join(rows.select("row", "codes"), on="row")
        .with_columns(
            pl.concat_list(pl.when(applies).then(pl.lit(repair.value)) for repair, applies in repairs.items())
            .list.drop_nulls()
            .alias("repairs")
        )
        .select("row", "messages", "user_turns", "repairs", "earliest")
    )


def _assert_conserved(settings: SourceSettings, rows_in: Mapping[str, int], conversations: pl.DataFrame, quarantine: pl.DataFrame) -> None:
    kept = dict(conversations.group_by("month").len().iter_rows())
    rejected = dict(quarantine.group_by("month").len().iter_rows())
    for month, rows in rows_in.items():
        accepted, quarantined = kept.get(month, 0), rejected.get(month, 0)
        if accepted + quarantined != rows:
            raise RuntimeError(
                f"source {settings.name}, {month}: {rows} rows in, but {accepted} accepted and {quarantined} quarantined;"
                " have the files changed while they were read?"
            )
