"""Each property holds on sound rows and fails on each kind of unsound ones; the asset checks gate what comes after."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import conversations, evaluation, preferences, training
from rlhi_dagster import profiles
from rlhi_dagster.base.findings import matches_table
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import (
    CANDIDATE_REWARDS,
    CANDIDATES,
    CONVERSATIONS,
    JUDGEMENTS,
    PERSONAS,
    PREFERENCE_PAIRS,
    QUARANTINE,
    REWARD_PAIRS,
    REWRITE_PAIRS,
    REWRITES,
    SUPERSEDED,
    TABLES,
    TURNS,
    USERS,
    Table,
)
from rlhi_dagster.conversations.conservation import no_row_is_before_the_first_month, rows_are_conserved
from rlhi_dagster.conversations.splits import no_address_is_on_both_sides
from rlhi_dagster.evaluation.judgement_checks import malformed_share_is_low, orders_are_balanced
from rlhi_dagster.graph import declare
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.metadata import result
from rlhi_dagster.personas.evidence import personas_precede_use
from rlhi_dagster.preferences.pair_checks import chosen_differs_from_rejected, no_held_out_user_in_training
from rlhi_dagster.training.manifest_checks import (
    chosen_likelihood_holds,
    no_memorisation,
    nothing_lost,
    only_replies_carry_loss,
    step0_loss_is_ln2,
)
from tests.built import built, knowing

PLACE = declare.Place(profiles.load("sample"))


def at(day: int) -> datetime:
    return datetime(2023, 4, day, tzinfo=UTC)


def fill(table: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(table.columns), **record} for record in records], schema=table.schema)


# matches_table


def test_declared_tables_match() -> None:
    rows = [{"candidate_id": "a", "condition": condition} for condition in ("own", "none")]
    finding = matches_table(fill(CANDIDATE_REWARDS, rows).lazy(), CANDIDATE_REWARDS)
    assert finding.passed
    assert finding.numbers == {"rows": 2, "key_nulls": 0, "duplicate_rows": 0}
    assert matches_table(USERS.empty().lazy(), USERS).passed


@pytest.mark.parametrize(
    ("frame", "numbers"),
    [
        (USERS.empty().drop("split"), {"missing_or_mistyped": ["split"], "undeclared": []}),
        (USERS.empty().cast({"conversations": pl.Int32}), {"missing_or_mistyped": ["conversations"], "undeclared": []}),
        (USERS.empty().with_columns(pl.lit("x").alias("ip")), {"missing_or_mistyped": [], "undeclared": ["ip"]}),
        (fill(USERS, [{"user_id": "a"}, {"user_id": "a"}]), {"rows": 2, "key_nulls": 0, "duplicate_rows": 1}),
        (fill(USERS, [{"user_id": None}]), {"rows": 1, "key_nulls": 1, "duplicate_rows": 0}),
    ],
)
def test_table_that_does_not_match(frame: pl.DataFrame, numbers: dict[str, Any]) -> None:
    finding = matches_table(frame.lazy(), USERS)
    assert not finding.passed
    assert finding.numbers == numbers


@pytest.mark.parametrize("column", ["conversations", "split"])
def test_file_of_another_schema_cannot_hide_behind_the_first(tmp_path: Path, column: str) -> None:
    fill(USERS, [{"user_id": "a"}]).write_parquet(tmp_path / "1.parquet")
    stale = fill(USERS, [{"user_id": "b"}])
    stale = stale.drop("split") if column == "split" else stale.cast({column: pl.Int32})
    stale.write_parquet(tmp_path / "2.parquet")
    finding = matches_table(pl.scan_parquet([tmp_path / "1.parquet", tmp_path / "2.parquet"]), USERS)
    assert not finding.passed
    assert "unreadable" in finding.numbers


# rows_are_conserved


def test_conserved_rows() -> None:
    accepted = fill(CONVERSATIONS, [{"conversation_id": name, "month": "2023-04"} for name in "ab"]).lazy()
    rejected = fill(QUARANTINE, [{"row_id": "x", "month": "2023-04"}, {"row_id": "y", "month": "2023-05"}]).lazy()
    superseded = fill(SUPERSEDED, [{"row_id": "z", "month": "2023-05"}]).lazy()
    sound = rows_are_conserved({"2023-04": 3, "2023-05": 2}, accepted, rejected, superseded)
    assert sound.passed
    numbers = {"source_rows": 5, "accepted_rows": 2, "quarantined_rows": 2, "superseded_rows": 1, "months_off": []}
    assert sound.numbers == numbers
    for counted in ({"2023-04": 4, "2023-05": 1}, {"2023-04": 3}, {"2023-04": 3, "2023-05": 2, "2023-06": 1}, {"2023-04": 3, "2023-05": 1}):
        assert not rows_are_conserved(counted, accepted, rejected, superseded).passed


def test_rows_before_the_first_month() -> None:
    assert no_row_is_before_the_first_month({"2023-04": 3}, "2023-04").passed
    told = no_row_is_before_the_first_month({"2023-02": 1, "2023-03": 2, "2023-04": 3}, "2023-04")
    assert not told.passed
    assert told.numbers == {"rows_before": 3, "first_month": "2023-04", "months_before": ["2023-02", "2023-03"]}


# personas_precede_use

TURN_ROWS = fill(TURNS, [{"turn_id": "t1", "asked_at": at(1)}, {"turn_id": "t3", "asked_at": at(3)}]).lazy()


def pairs_at(day: int | None, *line_ids: str) -> pl.LazyFrame:
    return fill(REWRITE_PAIRS, [{"pair_id": "p", "asked_at": day and at(day), "persona_line_ids": list(line_ids)}]).lazy()


def line(valid_from: int, *evidence: str, writer: str = "extractive") -> pl.LazyFrame:
    return fill(PERSONAS, [{"persona_line_id": "l", "valid_from": at(valid_from), "evidence": list(evidence), "writer": writer}]).lazy()


def test_persona_known_before_the_turn_passes() -> None:
    finding = personas_precede_use(pairs_at(2, "l"), line(1, "t1"), TURN_ROWS)
    assert finding.passed
    assert finding.numbers["uses"] == 1
    assert personas_precede_use(pairs_at(2), line(3, "t3"), TURN_ROWS).passed
    assert personas_precede_use(pairs_at(None), line(3, "t3"), TURN_ROWS).passed


def test_a_users_own_correction_needs_no_message() -> None:
    finding = personas_precede_use(pairs_at(2, "l"), line(1, writer="correction"), TURN_ROWS)
    assert finding.passed
    assert finding.numbers["uses"] == 1


@pytest.mark.parametrize(
    ("rows", "personas", "fault"),
    [
        (pairs_at(2, "l"), line(2, "t1"), "late_lines"),
        (pairs_at(2, "l"), line(1, "t1", "t3"), "late_evidence"),
        (pairs_at(3, "l"), line(1, "t3"), "late_evidence"),
        (pairs_at(2, "l"), line(1, "t1", "t9"), "unknown_evidence"),
        (pairs_at(2, "l"), line(1), "unknown_evidence"),
        (pairs_at(2, "l"), line(1, writer="model@1"), "unknown_evidence"),
        (pairs_at(2, "l"), line(2, writer="correction"), "late_lines"),
        (pairs_at(2, "l"), line(1, "t3", writer="correction"), "late_evidence"),
        (pairs_at(2, "l"), line(1, "t9", writer="correction"), "unknown_evidence"),
        (pairs_at(2, "m"), line(1, "t1"), "unknown_lines"),
        (pairs_at(None, "l"), line(1, "t1"), "undated_uses"),
    ],
)
def test_persona_that_could_not_be_known_fails(rows: pl.LazyFrame, personas: pl.LazyFrame, fault: str) -> None:
    finding = personas_precede_use(rows, personas, TURN_ROWS)
    assert not finding.passed
    assert {name: count for name, count in finding.numbers.items() if count and name != "uses"} == {fault: 1}


# no_held_out_user_in_training


@pytest.mark.parametrize(
    ("user", "passed", "fault"),
    [("train", True, None), (None, True, None), ("held", False, "held_out_pairs"), ("new", False, "unknown_user_pairs")],
)
def test_users_of_training_pairs(user: str | None, passed: bool, fault: str | None) -> None:
    users = fill(USERS, [{"user_id": "train", "split": "train"}, {"user_id": "held", "split": "test"}]).lazy()
    pairs = fill(PREFERENCE_PAIRS, [{"pair_id": "1", "user_id": "train"}, {"pair_id": "2", "user_id": user}]).lazy()
    finding = no_held_out_user_in_training(pairs, users)
    assert finding.passed is passed
    if fault:
        assert finding.numbers[fault] == 1


# no_address_is_on_both_sides


@pytest.mark.parametrize(
    ("user", "address", "fault"),
    [
        ("train", "home", None),
        ("held", "work", None),
        ("held", None, None),
        ("held", "home", "addresses_on_both_sides"),
        ("new", "home", "unknown_users_at_addresses"),
    ],
)
def test_users_at_an_address(user: str, address: str | None, fault: str | None) -> None:
    sides = {"ann": "train", "train": "train", "held": "test"}
    users = fill(USERS, [{"user_id": name, "split_group": name, "split": side} for name, side in sides.items()])
    visits = [("ann", "home"), ("ann", "home"), (user, address)]
    conversations = fill(CONVERSATIONS, [{"user_id": name, "address_id": where} for name, where in visits])
    finding = no_address_is_on_both_sides(users.lazy(), conversations.lazy())
    assert finding.passed is (fault is None)
    assert {name: n for name, n in finding.numbers.items() if n and name != "shared_addresses"} == ({fault: 1} if fault else {})
    assert finding.numbers["shared_addresses"] == (address == "home")


# chosen_differs_from_rejected


@pytest.mark.parametrize(
    ("chosen", "is_kept", "passed"),
    [("short", True, True), ("long  one ", True, False), ("long one", False, True), (" ", True, False), (None, True, False)],
)
def test_sides_of_a_pair(chosen: str | None, is_kept: bool, passed: bool) -> None:
    pair = {"pair_id": "p", "chosen": chosen, "rejected": "long one", "is_kept": is_kept}
    assert chosen_differs_from_rejected(fill(REWRITE_PAIRS, [pair]).lazy()).passed is passed


def test_a_pair_of_unknown_fate_counts() -> None:
    pair = {"pair_id": "p", "is_kept": None, "chosen": "same", "rejected": "same"}
    assert not chosen_differs_from_rejected(fill(PREFERENCE_PAIRS, [pair]).lazy()).passed


# orders_are_balanced


@pytest.mark.parametrize(
    ("orders", "passed"),
    [
        (["recipe_first", "opponent_first"], True),
        ([], True),
        (["recipe_first"], False),
        (["recipe_first", "recipe_first"], False),
        (["recipe_first", "opponent_first", "opponent_first"], False),
        (["recipe_first", None], False),
    ],
)
def test_orders(orders: list[str | None], passed: bool) -> None:
    same = {"recipe": "dpo", "prompt_id": "p", "opponent": "base", "judge": "town"}
    rows = [{**same, "judgement_id": str(index), "order": order} for index, order in enumerate(orders)]
    assert orders_are_balanced(fill(JUDGEMENTS, rows).lazy()).passed is passed


# step0_loss_is_ln2


@pytest.mark.parametrize(
    ("manifest", "passed"),
    [
        ({"method": "dpo", "step0_loss": math.log(2) + 5e-4}, True),
        ({"method": "sft", "step0_loss": 3.0}, True),
        ({"method": "dpo", "step0_loss": 0.7}, False),
        ({"method": "dpo", "step0_loss": math.nan}, False),
        ({"method": "dpo", "step0_loss": "0.693"}, False),
        ({"method": "dpo"}, False),
        (None, False),
    ],
)
def test_step0_loss(manifest: dict[str, Any] | None, passed: bool) -> None:
    assert step0_loss_is_ln2({"base": {"method": "none"}, "dpo": manifest}).passed is passed


# what manifests say


def manifest(**changes: Any) -> dict[str, Any]:
    """Of a sound checkpoint, with changes; a change of ``None`` takes a key away."""
    sound = {
        "method": "dpo",
        "settings": {"max_displacement": 0.2, "max_memorisation": 0.5},
        "validation": {"displacement": 0.1, "memorisation": 0.3},
        "evaluations": [{"eval_displacement": 0.0}, {"eval_displacement": 0.1, "eval_memorisation": 0.3}, {"eval_displacement": 0.9}],
        "chosen": {"step": 2, "passed_over": [{"step": 4}]},
        "data": {"pairs": 10},
        "trained_rows": 8,
        "pairs_too_long": 2,
        "validation_pairs": 3,
        "masks": {"train": {"rows": 8, "tokens": 100, "loss_tokens": 25}, "validation": {"rows": 3, "tokens": 9, "loss_tokens": 3}},
    }
    return {name: value for name, value in (sound | changes).items() if value is not None}


PROPERTIES = [chosen_likelihood_holds, no_memorisation, nothing_lost, only_replies_carry_loss]


@pytest.mark.parametrize("holds", PROPERTIES)
def test_sound_manifests_hold_and_missing_ones_do_not(holds: Any) -> None:
    assert holds({"base": {"method": "none"}, "dpo": manifest()}).passed
    finding = holds({"dpo": manifest(), "gone": None})
    assert not finding.passed
    assert finding.numbers["without_manifest"] == ["gone"]


@pytest.mark.parametrize(
    ("holds", "changes", "passed"),
    [
        (chosen_likelihood_holds, {"validation": {"displacement": 0.2}}, True),
        (chosen_likelihood_holds, {"validation": {"displacement": 0.21}}, False),
        (chosen_likelihood_holds, {"validation": {"displacement": math.nan}}, False),
        (chosen_likelihood_holds, {"validation": {}}, False),
        (chosen_likelihood_holds, {"method": "sft", "validation": {}}, True),
        (no_memorisation, {"validation": {"memorisation": 0.51}}, False),
        (no_memorisation, {"method": "sft", "validation": {"memorisation": 0.51}}, False),
        (no_memorisation, {"method": "reward", "validation": {}}, False),
        (no_memorisation, {"method": "policy", "validation": {}}, True),
        (nothing_lost, {"trained_rows": 7}, False),
        (nothing_lost, {"trained_rows": 9}, False),
        (nothing_lost, {"data": {"pairs": 11}}, False),
        (nothing_lost, {"data": {}}, False),
        (nothing_lost, {"pairs_too_long": None}, False),
        (nothing_lost, {"method": "reward", "trained_rows": 7}, False),
        (only_replies_carry_loss, {"masks": None}, False),
        (only_replies_carry_loss, {"method": "sft", "masks": None}, False),
        (only_replies_carry_loss, {"method": "reward", "masks": None}, True),
        (only_replies_carry_loss, {"trained_rows": 9}, False),
        (only_replies_carry_loss, {"validation_pairs": 4}, False),
        (only_replies_carry_loss, {"masks": {"train": {"rows": 8, "tokens": 100, "loss_tokens": 25}}}, False),
        (only_replies_carry_loss, {"masks": {"train": {"rows": 8, "tokens": 9, "loss_tokens": 2}}, "validation_pairs": 0}, True),
    ],
)
def test_unsound_manifests_do_not_hold(holds: Any, changes: dict[str, Any], passed: bool) -> None:
    finding = holds({"base": {"method": "none"}, "x": manifest(**changes), "y": manifest()})
    assert finding.passed is passed
    assert finding.numbers["off"] == ([] if passed else ["x"])


def test_the_worst_snapshot_is_reported_beside_the_kept_one() -> None:
    numbers = chosen_likelihood_holds({"x": manifest()}).numbers
    assert (numbers["displacement/x"], numbers["worst_displacement/x"], numbers["passed_over/x"]) == (0.1, 0.9, 1)
    assert nothing_lost({"x": manifest(trained_rows=5)}).numbers["pairs_lost/x"] == 3
    assert only_replies_carry_loss({"x": manifest()}).numbers["loss_share/x"] == 0.25


# malformed_share_is_low


@pytest.mark.parametrize(("malformed", "passed"), [(0, True), (1, True), (2, False), (None, False)])
def test_malformed_share(malformed: int | None, passed: bool) -> None:
    rows = [
        {
            "judgement_id": f"{index}{order}",
            "recipe": "dpo",
            "prompt_id": str(index),
            "is_malformed": None if malformed is None else index < malformed,
        }
        for index in range(50)
        for order in "12"
    ]
    finding = malformed_share_is_low(fill(JUDGEMENTS, rows).lazy())
    assert finding.passed is passed
    assert finding.numbers["n"] == (0 if malformed is None else 50)


# as asset checks


def declared(checks: list[declare.Check], asset: str, name: str) -> declare.Check:
    """One of those that a module of ``assets`` declares."""
    (found,) = [each for each in checks if (each.asset, each.name) == (asset, name)]
    return found


def found_by(outcome: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {evaluation.check_name: evaluation for evaluation in outcome.get_asset_check_evaluations()}


def run_check(
    root: Path, frame: pl.DataFrame, check: declare.Check, tags: dict[str, str] | None = None
) -> tuple[bool, dg.AssetCheckEvaluation]:
    """Materialize ``frame`` as an asset with a check and a downstream asset; say whether the downstream asset ran, and what was found."""
    by_month = {name: PLACE.months if table.partition_column == "month" else None for name, table in TABLES.items()}
    table_name = check.asset

    @dg.asset(name=table_name, partitions_def=by_month[table_name], backfill_policy=dg.BackfillPolicy.single_run())
    def upstream() -> dg.MaterializeResult[pl.DataFrame]:
        return result(table_name, frame)

    @dg.asset(deps=[table_name], backfill_policy=dg.BackfillPolicy.single_run())
    def downstream() -> None: ...

    definitions = dg.Definitions(
        assets=[upstream, downstream, *(dg.AssetSpec(name, partitions_def=by_month[name]) for name in TABLES if name != table_name)],
        asset_checks=built(PLACE.profile, check),
        jobs=[dg.define_asset_job("everything")],
        resources={"io_manager": TableIOManager(root=str(root)), "lake": Lake(root=str(root)), "settings": Settings(PLACE.profile)},
    )
    with knowing("2023-03", "2023-04", "2023-05") as instance:
        outcome = definitions.resolve_job_def("everything").execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    found, *others = outcome.get_asset_check_evaluations()
    assert {each.check_name for each in (found, *others)} == {check.name}
    assert {each.passed for each in others} <= {found.passed}
    return bool(outcome.asset_materializations_for_node("downstream")), found


@pytest.mark.parametrize("ids", ["ab", "aa"])
def test_table_check_of_a_range_of_months_gates_downstream(tmp_path: Path, ids: str) -> None:
    frame = fill(TURNS, [{"turn_id": name, "month": f"2023-0{4 + index}"} for index, name in enumerate(ids)])
    tags = {"dagster/asset_partition_range_start": "2023-04", "dagster/asset_partition_range_end": "2023-05"}
    Lake(root=str(tmp_path)).write("turns", frame.with_columns(month=pl.lit("2023-03")), ["2023-03"])  # not of this run
    went_on, found = run_check(tmp_path, frame, declare.matches_table("turns"), tags)
    assert went_on is found.passed is (ids == "ab")
    assert found.metadata["rows"].value == 2


@pytest.mark.parametrize(
    ("of_april", "of_may", "red"),
    [("ab", "cd", set()), ("ab", "cc", {"2023-05"}), ("aa", "cc", {"2023-04", "2023-05"}), ("ab", "bc", {"2023-04", "2023-05"})],
)
def test_a_fault_turns_its_months_red_and_stops_what_depends_on_them_and_nothing_else(
    tmp_path: Path, of_april: str, of_may: str, red: set[str]
) -> None:
    """The last fault is in neither month alone: a key of both."""
    of = {"2023-04": of_april, "2023-05": of_may}
    rows = fill(TURNS, [{"turn_id": name, "month": month} for month, names in of.items() for name in names])
    alone = dg.BackfillPolicy.single_run()

    @dg.asset(partitions_def=PLACE.months, backfill_policy=alone)
    def turns() -> dg.MaterializeResult[pl.DataFrame]:
        return result("turns", rows)

    @dg.asset(deps=["turns"], partitions_def=PLACE.months, backfill_policy=alone)
    def dependent() -> None: ...

    @dg.asset(partitions_def=PLACE.months, backfill_policy=alone)
    def independent() -> None: ...

    with knowing("2023-04", "2023-05") as instance:
        outcome = dg.materialize(
            [turns, dependent, independent, *built(PLACE.profile, declare.matches_table("turns"))],
            instance=instance,
            tags={"dagster/asset_partition_range_start": "2023-04", "dagster/asset_partition_range_end": "2023-05"},
            resources={
                "io_manager": TableIOManager(root=str(tmp_path)),
                "lake": Lake(root=str(tmp_path)),
                "settings": Settings(PLACE.profile),
            },
            raise_on_error=False,
        )
        shown = instance.event_log_storage.get_asset_check_partition_info([dg.AssetCheckKey(dg.AssetKey("turns"), "matches_table")])
        made = {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in ("turns", "dependent", "independent")}
    assert {each.partition for each in outcome.get_asset_check_evaluations() if not each.passed} == red
    assert {each.partition_key for each in shown if each.latest_execution_status.name == "FAILED"} == red
    assert all(each.is_current for each in shown), "each is of the latest materialization of its month"
    assert made == {"turns": {*of}, "dependent": set() if red else {*of}, "independent": {*of}}


@pytest.mark.parametrize("ids", ["ab", "aa"])
def test_table_check_of_an_unpartitioned_table_gates_downstream(tmp_path: Path, ids: str) -> None:
    frame = fill(USERS, [{"user_id": name} for name in ids])
    went_on, found = run_check(tmp_path, frame, declare.matches_table("users"))
    assert went_on is found.passed is (ids == "ab")


@pytest.mark.parametrize("source_rows", [2, 3])
def test_conservation_check_counts_the_months_of_the_run(tmp_path: Path, source_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(root=str(tmp_path))
    quarantined = [{"row_id": month, "month": month} for month in ("2023-04", "2023-05")]
    lake.write("quarantine", fill(QUARANTINE, quarantined), ["2023-04", "2023-05"])
    lake.write("superseded", SUPERSEDED.empty(), ["2023-04", "2023-05"])
    accepted = fill(CONVERSATIONS, [{"conversation_id": "a", "month": "2023-04"}])
    monkeypatch.setattr(conversations, "month_counts", lambda _: {"2023-04": source_rows, "2023-05": 9})
    went_on, found = run_check(tmp_path, accepted, conversations.conservation, {"dagster/partition": "2023-04"})
    assert went_on is found.passed is (source_rows == 2)


@pytest.mark.parametrize("valid_from", [1, 2])
def test_personas_check_finds_evidence_in_months_outside_the_run(tmp_path: Path, valid_from: int) -> None:
    lake = Lake(root=str(tmp_path))
    lake.write("turns", TURN_ROWS.with_columns(month=pl.lit("2023-04")).collect(), ["2023-04"])
    lake.write("personas", line(valid_from, "t1").collect())
    used = [{"rewrite_id": "r", "month": "2023-05", "asked_at": at(2), "persona_line_ids": ["l"]}]
    tags = {"dagster/partition": "2023-05"}
    check = declared(preferences.persona_checks, "rewrites", "personas_precede_use")
    went_on, found = run_check(tmp_path, fill(REWRITES, used), check, tags)
    assert went_on is found.passed is (valid_from == 1)


@pytest.mark.parametrize("split", ["train", "tuning", "test"])
def test_held_out_check_gates_training(tmp_path: Path, split: str) -> None:
    Lake(root=str(tmp_path)).write("users", fill(USERS, [{"user_id": "u", "split": split}]))
    pairs = fill(PREFERENCE_PAIRS, [{"pair_id": "p", "user_id": "u"}])
    check = declared(preferences.pairs_are_sound, "preference_pairs", "no_held_out_user_in_training")
    went_on, found = run_check(tmp_path, pairs, check)
    assert went_on is found.passed is (split == "train")


@pytest.mark.parametrize("split", ["train", "tuning", "test"])
def test_address_check_gates_what_reads_users(tmp_path: Path, split: str) -> None:
    visits = [{"conversation_id": name, "user_id": name, "address_id": "home", "month": f"2023-0{4 + n}"} for n, name in enumerate("ab")]
    Lake(root=str(tmp_path)).write("conversations", fill(CONVERSATIONS, visits), ["2023-04", "2023-05"])
    users = fill(USERS, [{"user_id": name, "split_group": name, "split": side} for name, side in (("a", "train"), ("b", split))])
    went_on, found = run_check(tmp_path, users, conversations.one_side)
    assert went_on is found.passed is (split == "train")


@pytest.mark.parametrize("chosen", ["better", "worse"])
def test_chosen_check_gates_training(tmp_path: Path, chosen: str) -> None:
    pairs = fill(PREFERENCE_PAIRS, [{"pair_id": "p", "is_kept": True, "chosen": chosen, "rejected": "worse"}])
    check = declared(preferences.pairs_are_sound, "preference_pairs", "chosen_differs_from_rejected")
    went_on, found = run_check(tmp_path, pairs, check)
    assert went_on is found.passed is (chosen == "better")


@pytest.mark.parametrize("lost", [False, True])
def test_requests_check_counts_the_months_of_the_run(tmp_path: Path, lost: bool) -> None:
    requests = [{"candidate_id": f"{turn}#0", "turn_id": turn, "month": month} for turn, month in (("a", "2023-04"), ("b", "2023-05"))]
    Lake(root=str(tmp_path)).write("candidates", fill(CANDIDATES, requests), ["2023-04", "2023-05"])
    rows = [{"pair_id": name, "turn_id": "a", "condition": name, "month": "2023-04"} for name in ("own", "shuffled", "none")]
    check = declared(preferences.accounting, "reward_pairs", "requests_are_accounted_for")
    went_on, found = run_check(tmp_path, fill(REWARD_PAIRS, rows[lost:]), check, {"dagster/partition": "2023-04"})
    assert went_on is found.passed is not lost
    assert found.metadata["requests"].value == 1


@pytest.mark.parametrize(("order", "is_malformed"), [("opponent_first", False), ("recipe_first", True)])
def test_checks_of_judgements(tmp_path: Path, order: str, is_malformed: bool) -> None:
    recipe = "dpo_rewrites"
    same = {"recipe": recipe, "prompt_id": "p", "opponent": "base", "judge": "town", "is_malformed": is_malformed}
    rows = [{**same, "judgement_id": "1", "order": "recipe_first"}, {**same, "judgement_id": "2", "order": order}]

    @dg.asset(partitions_def=PLACE.recipes)
    def judgements() -> dg.MaterializeResult[pl.DataFrame]:
        return result("judgements", fill(JUDGEMENTS, rows))

    outcome = dg.materialize(
        [judgements, *built(PLACE.profile, evaluation.balanced, evaluation.intact)],
        partition_key=recipe,
        resources={
            "io_manager": TableIOManager(root=str(tmp_path)),
            "lake": Lake(root=str(tmp_path)),
            "settings": Settings(PLACE.profile),
        },
        raise_on_error=False,
    )
    found = found_by(outcome)
    assert found["orders_are_balanced"].passed is (order == "opponent_first")
    assert found["malformed_share_is_low"].passed is not is_malformed
    assert found["malformed_share_is_low"].severity is dg.AssetCheckSeverity.WARN


@pytest.mark.parametrize("loss", [0.6931, 0.5])
def test_step0_check_reads_the_manifests_of_the_run(tmp_path: Path, loss: float) -> None:
    lake = Lake(root=str(tmp_path))

    first, second, other = PLACE.recipes.get_partition_keys()[:3]

    @dg.asset(partitions_def=PLACE.recipes, backfill_policy=dg.BackfillPolicy.single_run())
    def checkpoints(context: dg.AssetExecutionContext) -> None:
        for recipe in context.partition_keys:
            folder = lake.artefact_path("checkpoints", recipe)
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text(
                json.dumps({"method": "none"} if recipe == first else {"method": "dpo", "step0_loss": loss})
            )

    lake.artefact_path("checkpoints", other).mkdir(parents=True)  # without a manifest, but not of this run
    outcome = dg.materialize(
        [checkpoints, *built(PLACE.profile, declared(training.manifests_are_sound, "checkpoints", "step0_loss_is_ln2"))],
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": second},
        resources={"lake": lake, "settings": Settings(PLACE.profile)},
        raise_on_error=False,
    )
    found = {evaluation.partition: evaluation for evaluation in outcome.get_asset_check_evaluations()}
    assert {recipe: each.passed for recipe, each in found.items()} == {first: True, second: loss == 0.6931}
    assert found[second].metadata["dpo_recipes"].value == 1


@pytest.mark.parametrize("trained", [8, 7])
def test_a_check_of_an_unpartitioned_artefact_reads_its_manifest(tmp_path: Path, trained: int) -> None:
    lake = Lake(root=str(tmp_path))

    @dg.asset
    def reward_model() -> None:
        folder = lake.artefact_path("reward_model")
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(manifest(method="reward", trained_rows=trained, validation={"memorisation": 9})))

    outcome = dg.materialize(
        [reward_model, *built(PLACE.profile, *(each for each in training.manifests_are_sound if each.asset == "reward_model"))],
        resources={"lake": lake, "settings": Settings(PLACE.profile)},
        raise_on_error=False,
    )
    found = found_by(outcome)
    assert found["nothing_lost"].passed is (trained == 8)
    assert found["nothing_lost"].severity is dg.AssetCheckSeverity.ERROR
    assert (found["no_memorisation"].passed, found["no_memorisation"].severity) == (False, dg.AssetCheckSeverity.WARN)
