"""Raw conversations in: accepted, quarantined, cut into turns, grouped by user."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
import polars as pl

from rlhi_dagster import checks, declare, metadata, profiles
from rlhi_dagster.conversations.ingest import ingest
from rlhi_dagster.conversations.sources import month_counts
from rlhi_dagster.conversations.turns import turns as turns_of
from rlhi_dagster.conversations.users import users as users_of
from rlhi_dagster.resources import Settings
from rlhi_dagster.tables import TABLES

GROUP = "conversations"

wildchat = dg.AssetSpec(
    "wildchat",
    description=(
        "One row is a conversation as the source has it: "
        "[WildChat-1M](https://huggingface.co/datasets/allenai/WildChat-1M) (ODC-BY), one's own logs, or the sample town. "
        "Not materialized here; the profile's `source`, or `RLHI_SOURCE`, says where it lies."
    ),
    group_name=GROUP,
    kinds={"huggingface", "parquet"},
    owners=declare.OWNERS,
    metadata={"location": profiles.current().source.location, "kind": str(profiles.current().source.kind)},
)


_INGESTED = {
    "conversations": "One row is an accepted conversation: alternating messages, a salted user fingerprint, repairs noted.",
    "quarantine": "One row is a rejected source row: where it came from and why, without any of its text.",
}


@dg.multi_asset(
    name="ingested",
    partitions_def=declare.MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=[wildchat],
    outs={
        name: dg.AssetOut(
            dagster_type=pl.DataFrame,
            group_name=GROUP,
            description=description,
            kinds={"polars"},
            owners=declare.OWNERS,
            code_version="1",
            metadata=TABLES[name].metadata,
        )
        for name, description in _INGESTED.items()
    },
)
def ingested(context: dg.AssetExecutionContext, settings: Settings) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """Read the months' rows of the source; every row is accepted or quarantined with one reason."""
    profile = settings.profile
    found = ingest(profiles.source_settings(profile), context.partition_keys, profiles.salt(profile))
    reasons = dict(found.quarantine["reason"].value_counts(sort=True).iter_rows())
    repairs = dict(found.conversations["repairs"].explode().drop_nulls().value_counts(sort=True).iter_rows())
    yield metadata.result(
        "conversations",
        found.conversations,
        source_rows=sum(found.rows_in.values()),
        rows=len(found.conversations),
        template_conversations=found.conversations["template_id"].count(),
        conversations_by_month=metadata.bars(dict(found.conversations.group_by("month").len().sort("month").iter_rows())),
        repairs=metadata.bars(repairs),
    )
    yield metadata.result("quarantine", found.quarantine, rows=len(found.quarantine), reasons=metadata.bars(reasons))


@declare.table("turns", GROUP, set())
def turns(conversations: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a user message and the logged reply to it."""
    found = turns_of(conversations)
    return metadata.result(
        "turns",
        found,
        follow_ups=int((found["turn"] > 1).sum()),
        turns_by_position=metadata.bars({str(turn): n for turn, n in found["turn"].value_counts().sort("turn").head(10).iter_rows()}),
    )


@declare.table("users", GROUP, set())
def users(settings: Settings, conversations: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a connection fingerprint with its activity and split; not necessarily one person."""
    found = users_of(conversations, settings.profile.held_out_fraction)
    return metadata.result(
        "users",
        found,
        held_out_users=int((found["split"] == "held_out").sum()),
        median_conversations=metadata.number(found["conversations"].median()),
    )


def _source_rows(settings: Settings, months: Sequence[str] | None) -> Mapping[str, int]:
    counted = month_counts(profiles.source_settings(settings.profile))
    return counted if months is None else {month: counted.get(month, 0) for month in months}


table_checks = [checks.table_check(name, TABLES[name]) for name in ("conversations", "quarantine", "turns", "users")]
conservation = checks.conservation_check("conversations", "quarantine", "settings", _source_rows)
