"""Raw conversations in: accepted, quarantined, cut into turns, grouped by user."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base import control_tokens
from rlhi_dagster.base.lake import Lake, Staged
from rlhi_dagster.base.progress import Progress
from rlhi_dagster.conversations.conservation import no_row_is_before_the_first_month, rows_are_conserved
from rlhi_dagster.conversations.ingest import ROWS_AT_ONCE, judge
from rlhi_dagster.conversations.shape import conversation_lengths, entries, quarantine_by_month, users_by_activity
from rlhi_dagster.conversations.sources import month_counts, source_files
from rlhi_dagster.conversations.splits import no_address_is_on_both_sides
from rlhi_dagster.conversations.turns import turns as turns_of
from rlhi_dagster.conversations.users import users as users_of
from rlhi_dagster.forgetting import tombstones
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.profiles import salts

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
            code_version="4",
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
        declare.Out(
            "superseded",
            GROUP,
            set(),
            "One row is a source row that is no conversation of its own, such as a request whose history a later one repeats.",
            code_version="1",
            reads=_READS,
        ),
        declare.Out(
            "explicit_feedback",
            GROUP,
            set(),
            "One row is something that a user, staff or a model said of a reply outright: a thumb, a rating, a comment, an edit.",
            code_version="2",
            reads=_READS,
        ),
    ],
    deps=[wildchat],
)
def ingested(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]
) -> Iterator[dg.MaterializeResult[Staged | pl.DataFrame]]:
    """Read the months' rows of the source; every row is accepted, quarantined with one reason, or superseded by another."""
    profile = settings.profile
    salt = profiles.salt(profile)
    forgotten = tombstones.read(settings.profile.root, salt)
    salts.keep(Path(lake.root), salt)
    judged = judge(profiles.source_settings(profile), context.partition_keys, salt, forgotten=forgotten)
    context.log.info(judged.files)
    if judged.other_months:
        context.log.info(f"rows of other months, which this run leaves out: {_counts(judged.other_months)}")
    with lake.writer("conversations", context.partition_keys) as writer:
        progress, rows = Progress(context.log.info, "conversations"), 0
        for found in judged.conversations():
            writer.append(found)
            progress(rows := rows + len(found), len(judged.accepted))
        staged = writer.finish()
        notes = {name: entries(staged.scan().select(name)) for name in ("repairs", "redactions")}
        holds_control_token = pl.element().struct.field("content").str.contains(control_tokens.PATTERN)
        marked = staged.scan().select(pl.col("messages").list.eval(holds_control_token).list.sum().sum())
        yield metadata.result(
            "conversations",
            staged,
            source_files=judged.files,
            source_rows=sum(judged.rows_in.values()),
            rows_of_other_months=sum(judged.other_months.values()),
            rows=rows,
            template_conversations=judged.accepted["template_id"].count(),
            control_token_messages=int(marked.collect(engine="streaming").item() or 0),
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
    yield metadata.result(
        "superseded",
        judged.superseded,
        rows=len(judged.superseded),
        causes=metadata.bars(dict(judged.superseded["cause"].value_counts(sort=True).iter_rows())),
    )
    given = judged.explicit_feedback
    kinds = given.group_by("kind", "giver").len().sort("len", "kind", "giver", descending=[True, False, False])
    yield metadata.result(
        "explicit_feedback",
        given,
        rows=len(given),
        kinds=metadata.bars({f"{kind} by {giver}": count for kind, giver, count in kinds.iter_rows()}),
    )


def _counts(by_month: Mapping[str, int]) -> str:
    return ", ".join(f"{month} {rows:,}" for month, rows in sorted(by_month.items()))


@declare.asset("turns", GROUP, set(), code_version="2")
def turns(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], conversations: pl.LazyFrame) -> dg.MaterializeResult[Staged]:
    """One row is a user message and the logged reply to it, if it got one."""
    with lake.writer("turns", context.partition_keys) as writer:
        for chunk in conversations.collect_batches(chunk_size=ROWS_AT_ONCE, engine="streaming"):
            writer.append(turns_of(chunk))
        staged = writer.finish()
        positions = staged.scan().select(pl.col("turn").value_counts(sort=True)).unnest("turn").sort("turn").collect()
        return metadata.result(
            "turns",
            staged,
            follow_ups=int(positions.filter(pl.col("turn") > 1)["count"].sum()),
            unanswered=int(staged.scan().select(pl.col("reply").null_count()).collect().item()),
            turns_by_position=metadata.bars({str(turn): n for turn, n in positions.head(10).iter_rows()}),
        )


@declare.asset("users", GROUP, set(), code_version="3", reads=("split",))
def users(settings: dg.ResourceParam[Settings], conversations: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a connection fingerprint with its activity and split; not necessarily one person."""
    found = users_of(conversations, settings.profile.split)
    signs = entries(found.lazy().select("merge_risk"))
    group_sizes = found.group_by("split_group").len()["len"]
    return metadata.result(
        "users",
        found,
        users_by_split=metadata.bars(dict(found.group_by("split").len().sort("split").iter_rows())),
        users_split_together=int(group_sizes.filter(group_sizes > 1).sum()),
        largest_split_group=metadata.number(group_sizes.max()),
        median_conversations=metadata.number(found["conversations"].median()),
        users_by_activity=metadata.bars(users_by_activity(found.lazy())),
        merge_risk=metadata.bars(signs),
    )


def _rows_by_month(run: declare.Run) -> Mapping[str, int]:
    """Rows of the source by month, counted independently of the code that accepts and rejects them."""
    return month_counts(profiles.source_settings(run.profile))


def _source_rows(run: declare.Run) -> Mapping[str, int]:
    counted = _rows_by_month(run)
    return counted if run.partitions is None else {month: counted.get(month, 0) for month in run.partitions}


table_checks = [
    declare.matches_table(name) for name in ("conversations", "quarantine", "superseded", "explicit_feedback", "turns", "users")
]
conservation = declare.check(
    "conversations",
    rows_are_conserved,
    quarantined="quarantine",
    superseded="superseded",
    counted=_source_rows,
    of_run=["quarantined", "superseded"],
)
in_reach = declare.check(
    "conversations",
    no_row_is_before_the_first_month,
    counted=_rows_by_month,
    first_month=lambda run: run.profile.first_month,
    warns=True,
)
one_side = declare.check("users", no_address_is_on_both_sides, conversations="conversations")
