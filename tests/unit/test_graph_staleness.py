"""What of a job is not up to date: made-up assets with the names of tables, in an instance and a lake of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.graph.partitions import add_months, months
from rlhi_dagster.graph.staleness import Stale, stale

KEYS = {"month": ["2023-04", "2023-05"], "recipe": ["base"]}
LOGS = dg.AssetKey("logs")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        add_months(made, months(), KEYS["month"])
        yield made


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(root=str(tmp_path))
    for table, partition in (("turns", "2023-04"), ("turns", "2023-05"), ("users", None)):
        made.write(table, TABLES[table].schema.to_frame(), [partition] if partition else None)
    return made


def assets(code_version: str = "1") -> tuple[dg.AssetsDefinition, ...]:
    @dg.multi_observable_source_asset(specs=[dg.AssetSpec(LOGS)])
    def observe() -> None: ...

    @dg.asset(name="turns", deps=[LOGS], partitions_def=months(), code_version="1")
    def turns() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(tags={"dagster/input_data_version/logs": "one"})  # as `declare` has it of every source

    @dg.asset(name="users", deps=[turns], code_version=code_version)
    def users() -> None: ...

    return observe, turns, users


def loaded(code_version: str = "1") -> dg.Definitions:
    job = dg.define_asset_job("logs", dg.AssetSelection.assets("turns", "users"))
    return dg.Definitions(assets=assets(code_version), jobs=[job])


def made(instance: dg.DagsterInstance, version: str = "one") -> None:
    """Materialize everything, of files of this version."""
    instance.report_runless_asset_event(dg.AssetObservation(LOGS, tags={"dagster/data_version": version}))
    everything = assets()
    for month in KEYS["month"]:
        dg.materialize(everything, instance=instance, selection=["turns"], partition_key=month)
    dg.materialize(everything, instance=instance, selection=["users"])


def asked(instance: dg.DagsterInstance, lake: Lake, version: str = "one", code_version: str = "1") -> list[Stale]:
    return stale(loaded(code_version), "logs", KEYS, {LOGS: version}, lake, instance)


def test_what_is_made_of_the_same_is_up_to_date(instance: dg.DagsterInstance, lake: Lake) -> None:
    made(instance)
    assert asked(instance, lake) == []


def test_what_was_never_made_is_told_in_the_order_of_the_graph(instance: dg.DagsterInstance, lake: Lake) -> None:
    instance.report_runless_asset_event(dg.AssetObservation(LOGS, tags={"dagster/data_version": "one"}))
    assert asked(instance, lake) == [Stale("turns", "not made yet (2023-04)"), Stale("users", "not made yet")]


def test_a_month_that_is_not_made_is_named(instance: dg.DagsterInstance, lake: Lake) -> None:
    made(instance)
    add_months(instance, months(), ["2023-06"])
    keys = {**KEYS, "month": [*KEYS["month"], "2023-06"]}
    assert stale(loaded(), "logs", keys, {LOGS: "one"}, lake, instance)[0] == Stale("turns", "not made yet (2023-06)")


def test_other_code_or_settings_are_seen(instance: dg.DagsterInstance, lake: Lake) -> None:
    made(instance)
    assert asked(instance, lake, code_version="2") == [Stale("users", "has a new code version")]


def test_logs_that_changed_since_are_seen_without_an_observation(instance: dg.DagsterInstance, lake: Lake) -> None:
    made(instance)
    assert asked(instance, lake, version="two") == [Stale("turns", "the files of logs changed")]


def test_logs_that_were_observed_but_not_read_again_are_seen(instance: dg.DagsterInstance, lake: Lake) -> None:
    made(instance)
    instance.report_runless_asset_event(dg.AssetObservation(LOGS, tags={"dagster/data_version": "two"}))
    assert asked(instance, lake, version="two")[0] == Stale("turns", "logs has a new data version (2023-04)")


def test_a_table_whose_file_is_gone_is_made_again(instance: dg.DagsterInstance, lake: Lake) -> None:
    made(instance)
    lake.table_path("turns", "2023-05").unlink()
    assert asked(instance, lake) == [Stale("turns", f"{lake.table_path('turns', '2023-05')} is gone")]
