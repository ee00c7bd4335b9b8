"""Raw conversations in: accepted, quarantined, cut into turns, grouped by user."""

from collections.abc import Iterator, Mapping

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake, Staged
from rlhi_dagster.base.progress import Progress
from rlhi_dagster.conversations.conservation import rows_are_conserved
from rlhi_dagster.conversations.ingest import ROWS_AT_ONCE, judge
from rlhi_dagster.conversations.shape import conversation_lengths, entries, quarantine_by_month, users_by_activity
from rlhi_dagster.conversations.sources import month_counts, source_files
from rlhi_dagster.conversations.turns import turns as turns_of
from rlhi_dagster.conversations.users import users as users_of
from rlhi_dagster.forgetting import tombstones
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings

GROUP = "conversations"

wildchat = declare.Source(
    "wildchat",
    GROUP,
    "One row is a conversation as the source has it: "
    "[WildChat-1M](https://huggingface.co/datasets/allenai/WildChat-1M) (ODC-BY), one's own logs, or the sample town. "
    "Not materialized here; the profile's `source`, or `RLHI_SOURCE`, says where it lies.",
    location=lambda profile: profile.source.location,
    files=lambda profile: source_files(profiles.source_settings(profile)),
    shown=lambda profile: {"kind": str(profile.source.kind)},
)
_READS = ("source", "truth", "salt")


@declare.together(
    "ingested",
    "month",
    [
        declare.Out(
            "conversations",
            GROUP,
            set(),
            "One row is an accepted conversation: alternating messages, a salted user fingerprint, repairs noted.",
            code_version="2",
            reads=_READS,
        ),
        declare.Out(
            "quarantine",
            GROUP,
            set(),
            "One row is a rejected source row: where it came from and why, without any of its text.",
            code_version="2",
            reads=_READS,
        ),
    ],
    deps=["wildchat"],
)
def ingested(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]
) -> Iterator[dg.MaterializeResult[Staged | pl.DataFrame]]:
    """Read the months' rows of the source; every row is accepted or quarantined with one reason."""
    profile = settings.profile
    forgotten = tombstones.read(settings.profile.root)
    judged = judge(profiles.source_settings(profile), context.partition_keys, profiles.salt(profile), forgotten=forgotten)
    with lake.writer("conversations", context.partition_keys) as writer:
        progress, rows = Progress(context.log.info, "conversations"), 0
        for found in judged.conversations():
            writer.append(found)
            progress(rows := rows + len(found), len(judged.accepted))
        staged = writer.finish()
        notes = {name: entries(staged.scan().select(name)) for name in ("repairs", "redactions")}
        yield metadata.result(
            "conversations",
            staged,
            source_rows=sum(judged.rows_in.values()),
            rows=rows,
            template_conversations=judged.accepted["template_id"].count(),
            conversations_by_month=metadata.bars(dict(judged.accepted.group_by("month").len().sort("month").iter_rows())),
            conversations_by_length=metadata.bars(conversation_lengths(staged.scan())),
            **{name: metadata.bars(counts) for name, counts in notes.items()},
        )
    by_month = quarantine_by_month(judged.quarantine.lazy())
    yield metadata.result(
        "quarantine",
        judged.quarantine,
        rows=len(judged.quarantine),
        reasons=metadata.bars(dict(by_month.select("reason", "all").iter_rows())),
        reasons_by_month=metadata.markdown_table(by_month),
    )


@declare.asset("turns", GROUP, set())
def turns(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], conversations: pl.LazyFrame) -> dg.MaterializeResult[Staged]:
    """One row is a user message and the logged reply to it."""
    with lake.writer("turns", context.partition_keys) as writer:
        for chunk in conversations.collect_batches(chunk_size=ROWS_AT_ONCE, engine="streaming"):
            writer.append(turns_of(chunk))
        staged = writer.finish()
        positions = staged.scan().select(pl.col("turn").value_counts(sort=True)).unnest("turn").sort("turn").collect()
        return metadata.result(
            "turns",
            staged,
            follow_ups=int(positions.filter(pl.col("turn") > 1)["count"].sum()),
            turns_by_position=metadata.bars({str(turn): n for turn, n in positions.head(10).iter_rows()}),
        )


@declare.asset("users", GROUP, set(), reads=("held_out_fraction",))
def users(settings: dg.ResourceParam[Settings], conversations: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a connection fingerprint with its activity and split; not necessarily one person."""
    found = users_of(conversations, settings.profile.held_out_fraction)
    signs = entries(found.lazy().select("merge_risk"))
    return metadata.result(
        "users",
        found,
        held_out_users=int((found["split"] == "held_out").sum()),
        median_conversations=metadata.number(found["conversations"].median()),
        users_by_activity=metadata.bars(users_by_activity(found.lazy())),
        merge_risk=metadata.bars(signs),
    )


def _source_rows(run: declare.Run) -> Mapping[str, int]:
    """Rows of the source by month, counted independently of the code that accepts and rejects them."""
    counted = month_counts(profiles.source_settings(run.profile))
    return counted if run.partitions is None else {month: counted.get(month, 0) for month in run.partitions}


table_checks = [declare.matches_table(name) for name in ("conversations", "quarantine", "turns", "users")]
conservation = declare.check("conversations", rows_are_conserved, quarantined="quarantine", counted=_source_rows, of_run=["quarantined"])
