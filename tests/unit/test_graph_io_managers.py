"""Tables travel between assets: per-partition counts in one run, what each kind of consumer sees, and refusals."""

import errno
import os
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow.parquet as pq
import pytest

from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.launching import command
from rlhi_dagster.base.tables import RESPONSES, TURNS, USERS, Table
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.metadata import result
from rlhi_dagster.graph.partitions import against_base, months, recipes
from tests.built import knowing

MONTHS = months()
RECIPES = ("base", "sft", "dpo")
SEEN: dict[str, list[str]] = {}


def fill(table: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(table.columns), **record} for record in records], schema=table.schema)


def turn_rows(month: str, count: int) -> list[dict[str, Any]]:
    return [{"turn_id": f"{month}-c{index}:0", "month": month, "user_id": f"u{index}"} for index in range(count)]


@dg.asset(partitions_def=MONTHS, backfill_policy=dg.BackfillPolicy.single_run(), name="turns")
def turns_asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult[pl.DataFrame]:
    counts = {"2023-04": 2, "2023-05": 0, "2023-06": 3}
    return result(
        "turns", fill(TURNS, [row for month in context.partition_keys for row in turn_rows(month, counts[month])]), template_fraction=0.25
    )


@dg.asset(name="users", backfill_policy=dg.BackfillPolicy.single_run())
def users_asset(turns: pl.LazyFrame) -> dg.MaterializeResult[pl.DataFrame]:
    SEEN["users"] = turns.collect()["month"].unique().sort().to_list()
    return result("users", fill(USERS, [{"user_id": user} for user in turns.collect()["user_id"].unique()]))


@dg.asset(name="feedback_labels", partitions_def=MONTHS, backfill_policy=dg.BackfillPolicy.single_run())
def monthly_consumer(turns: pl.LazyFrame) -> None:
    SEEN["feedback_labels"] = turns.collect()["month"].unique().sort().to_list()


@dg.asset_check(asset=turns_asset, blocking=True)
def turns_of_the_run(turns: pl.LazyFrame) -> dg.AssetCheckResult:
    SEEN["check"] = turns.collect()["month"].unique().sort().to_list()
    return dg.AssetCheckResult(passed=True)


def run(root: Path, instance: dg.DagsterInstance, first: str, last: str, assets: list[Any] | None = None) -> dg.ExecuteInProcessResult:
    """Run assets over a range of months in a single run, as `dg launch --partition-range` does."""
    definitions = dg.Definitions(
        assets=assets or [turns_asset, users_asset],
        asset_checks=[turns_of_the_run] if turns_asset in (assets or [turns_asset]) else [],
        jobs=[dg.define_asset_job("everything")],
        resources={"io_manager": TableIOManager(root=str(root))},
    )
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    return definitions.resolve_job_def("everything").execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def sentence(failed: dg.ExecuteInProcessResult, asset: str) -> str:
    """What a run that failed says; an exception with a stack trace is no sentence."""
    data = failed.failure_data_for_node(asset)
    assert data
    assert data.user_failure_data, data.error
    return data.user_failure_data.description or ""


@pytest.fixture
def instance():
    with knowing("2023-04", "2023-05", "2023-06", "2023-07") as ephemeral:
        yield ephemeral


def test_one_run_over_three_months_reports_each_month_and_the_unpartitioned_table(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    outcome = run(tmp_path, instance, "2023-04", "2023-06")
    assert outcome.success
    events = {event.partition: event for event in outcome.asset_materializations_for_node("turns")}
    counts = {month: event.metadata["dagster/partition_row_count"].value for month, event in events.items()}
    assert counts == {"2023-04": 2, "2023-05": 0, "2023-06": 3}
    assert all(event.metadata["template_fraction"].value == 0.25 for event in events.values())
    digests = {month: event.metadata["content_sha256"].value for month, event in events.items()}
    assert digests["2023-04"] == fingerprint(Lake(root=str(tmp_path)).scan("turns", ["2023-04"]).collect())[:16]
    assert len(set(digests.values())) == 3
    (users,) = outcome.asset_materializations_for_node("users")
    assert users.metadata["dagster/row_count"].value == 3
    assert users.tags is not None
    assert users.tags["dagster/data_version"][:16] == users.metadata["content_sha256"].value


def test_data_version_of_a_single_month_is_its_content_and_stays_when_it_is_made_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    versions = []
    for _ in range(2):
        (event,) = run(tmp_path, instance, "2023-04", "2023-04", [turns_asset]).asset_materializations_for_node("turns")
        assert event.tags is not None
        assert event.tags["dagster/data_version"][:16] == event.metadata["content_sha256"].value
        versions.append(event.tags["dagster/data_version"])
    assert versions[0] == versions[1]


def test_check_sees_the_months_of_its_run_and_unpartitioned_consumer_every_month_present(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    assert run(tmp_path, instance, "2023-04", "2023-05").success
    assert run(tmp_path, instance, "2023-06", "2023-06").success
    assert SEEN["check"] == ["2023-06"]
    assert SEEN["users"] == ["2023-04", "2023-06"]


def test_partitioned_consumer_names_the_month_that_is_missing(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert run(tmp_path, instance, "2023-04", "2023-04", [turns_asset]).success
    upstream = dg.AssetSpec("turns", partitions_def=MONTHS)
    assert run(tmp_path, instance, "2023-04", "2023-04", [upstream, monthly_consumer]).success
    failed = run(tmp_path, instance, "2023-04", "2023-05", [upstream, monthly_consumer])
    assert not failed.success
    assert sentence(failed, "feedback_labels") == f"turns lacks the partition(s) 2023-05; run: {command('turns', ['2023-05'])}"


def test_recipe_reads_itself_and_base(tmp_path: Path) -> None:
    definition = recipes(RECIPES)
    lake = Lake(root=str(tmp_path))
    lake.write("responses", fill(RESPONSES, [{"response_id": f"{name}/p", "recipe": name} for name in RECIPES]), RECIPES)

    @dg.asset(
        partitions_def=definition,
        ins={"responses": dg.AssetIn(partition_mapping=against_base(RECIPES))},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def judgements(responses: pl.LazyFrame) -> None:
        SEEN["judgements"] = sorted(responses.collect()["recipe"])

    for recipe, expected in {"sft": ["base", "sft"], "base": ["base"]}.items():
        outcome = dg.materialize(
            [dg.AssetSpec("responses", partitions_def=definition), judgements],
            partition_key=recipe,
            resources={"io_manager": TableIOManager(root=str(tmp_path))},
            selection=[judgements],
        )
        assert outcome.success
        assert SEEN["judgements"] == expected


def test_row_of_another_month_fails_the_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    @dg.asset(name="turns", partitions_def=MONTHS)
    def stray() -> dg.MaterializeResult[pl.DataFrame]:
        return result("turns", fill(TURNS, turn_rows("2023-07", 1)))

    outcome = run(tmp_path, instance, "2023-04", "2023-04", [stray])
    assert not outcome.success
    assert sentence(outcome, "turns").startswith("turns: 1 rows have a month outside 2023-04: 2023-07 (1)")


def test_a_full_disk_is_told_in_one_sentence_and_the_old_table_stays(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, instance, "2023-04", "2023-04", [turns_asset]).success
    before = Lake(root=str(tmp_path)).table_path("turns", "2023-04").read_bytes()

    def full(self: pq.ParquetWriter, rows: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    outcome = run(tmp_path, instance, "2023-04", "2023-04", [turns_asset])
    assert sentence(outcome, "turns").startswith("no space is left on the device of the outputs: free some or set RLHI_DATA")
    assert {file.name: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == {"2023-04.parquet": before}
