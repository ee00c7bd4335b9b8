"""The union of pairs: sources, fates, split; and the checks that hold it to account."""

from __future__ import annotations

from typing import Any

import dagster as dg
import polars as pl
import pytest

from assets import preferences
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import (
    EVAL_PROMPTS,
    EXPLICIT_PAIRS,
    PREFERENCE_PAIRS,
    REASONING_PAIRS,
    REWARD_PAIRS,
    REWRITE_PAIRS,
    USERS,
    Table,
)
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.graph.metadata import result
from rlhi_dagster.preferences import Source, merge, pair_checks
from rlhi_dagster.preferences.decontamination import hits
from rlhi_dagster.preferences.merge import split_of
from rlhi_dagster.preferences.settings import DecontaminationSettings, PairSettings
from tests.built import built, upstream

DEFAULTS = DecontaminationSettings(min_similarity=None)


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def pair(pair_id: str, **more: Any) -> dict[str, Any]:
    sides = {"chosen": f"good {pair_id}", "rejected": "bad", "persona": "- short", "persona_line_ids": ["p1"], "strategy": "feedback"}
    kept = {"is_kept": True, "drop_reasons": [], "call_ids": [f"call-{pair_id}"]}
    return {"pair_id": pair_id, "user_id": "ann", "turn_id": f"t-{pair_id}", "prompt": asked("hello"), **sides, **kept} | more


def item(prompt_id: str, text: str, **more: Any) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "benchmark": "arithmetic", "prompt": asked(text)} | more


def unite(
    rewrites: list[dict[str, Any]] = [],  # noqa: B006 - never changed
    rewards: list[dict[str, Any]] = [],  # noqa: B006
    reasoning: list[dict[str, Any]] = [],  # noqa: B006
    items: list[dict[str, Any]] = [],  # noqa: B006
    fraction: float = 0.2,
    jaccard: float = 0.9,
    users: list[dict[str, Any]] = [],  # noqa: B006
    explicit: list[dict[str, Any]] = [],  # noqa: B006
) -> pl.DataFrame:
    offered = merge.offered_pairs(
        table(REWRITE_PAIRS, rewrites), table(REWARD_PAIRS, rewards), table(REASONING_PAIRS, reasoning), table(EXPLICIT_PAIRS, explicit)
    )
    found = hits(offered, table(EVAL_PROMPTS, items), 13, None, lambda texts: pytest.fail("nothing is embedded"))
    frame = merge.preference_pairs(offered, found, table(USERS, users), jaccard, fraction)
    assert frame.schema == PREFERENCE_PAIRS.schema
    assert frame["pair_id"].to_list() == offered["pair_id"].to_list()
    return frame


def kept(frame: pl.DataFrame) -> list[str]:
    return frame.filter("is_kept")["pair_id"].to_list()


def test_every_source_arrives_with_its_provenance() -> None:
    rewrites = [
        pair("r", follow_up_id="f1", meets_feedback=0.8, chosen_reward=1.5),
        pair("s", strategy="scratch"),
        pair("l", strategy="logged", is_off_policy=True),
    ]
    rewards = [
        pair(f"w-{condition}", condition=condition, chosen_reward=1.5, rejected_reward=0.5, reward_model="rm", model="m")
        for condition in ("own", "shuffled", "none")
    ]
    reasoning = [pair("e", error_id="e1", user_id=None, turn_id=None)]
    explicit = [pair(f"x-{kind}", kind=kind, is_off_policy=True, model="logged") for kind in ("edit", "regeneration", "choice")]
    rows = {row["pair_id"]: row for row in unite(rewrites, rewards, reasoning, explicit=explicit).to_dicts()}
    assert {name: (row["source"], row["strategy"]) for name, row in rows.items()} == {
        "r": ("rewrites", "feedback"),
        "s": ("rewrites_from_scratch", "scratch"),
        "l": ("rewrites_logged", "logged"),
        "w-own": ("rewards", "best_of_n"),
        "w-shuffled": ("rewards_shuffled", "best_of_n"),
        "w-none": ("rewards_none", "best_of_n"),
        "e": ("reasoning", "corrected"),
        "x-edit": ("edits", "edit"),
        "x-regeneration": ("siblings", "regeneration"),
        "x-choice": ("drafts", "choice"),
    }
    assert {row["source"] for row in rows.values()} == {source.value for source in Source}
    shown = ("follow_up_id", "persona_line_ids", "meets_feedback", "chosen_reward", "is_off_policy", "call_ids")
    assert [rows["r"][name] for name in shown] == ["f1", ["p1"], 0.8, 1.5, False, ["call-r"]]
    assert rows["l"]["is_off_policy"]
    assert [rows["w-own"][name] for name in ("chosen_reward", "rejected_reward", "reward_model")] == [1.5, 0.5, "rm"]
    assert [rows["e"][name] for name in ("error_id", "user_id", "persona", "persona_line_ids")] == ["e1", None, "", []]
    assert [rows["x-edit"][name] for name in ("is_off_policy", "model", "call_ids", "follow_up_id")] == [True, "logged", [], None]
    assert all(row["is_kept"] and row["drop_reasons"] == [] for row in rows.values())


def test_pairs_that_their_source_dropped_are_not_offered() -> None:
    dropped = {"is_kept": False, "drop_reasons": ["identical_sides"]}
    frame = unite([pair("a"), pair("b", **dropped)], [pair("c", condition="own", **dropped)], [pair("d", **dropped)])
    assert frame["pair_id"].to_list() == ["a"]


def test_an_id_of_two_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="share a pair_id, a among them"):
        unite([pair("a")], [pair("a", condition="own")])


def test_a_repeated_pair_is_kept_once_per_source_under_its_smallest_id() -> None:
    same = {"chosen": "good", "rejected": "bad"}
    rewrites = [pair("b", **same), pair("a", **same), pair("c", **same, persona="- long"), pair("s", **same, strategy="scratch")]
    frame = unite(rewrites, [pair("d", condition="own", **same)])
    assert kept(frame) == ["a", "c", "d", "s"]
    (row,) = frame.filter(pl.col("pair_id") == "b").select("is_kept", "drop_reasons", "duplicate_of").rows()
    assert row == (False, ["exact_duplicate"], "a")


def test_requests_of_evaluation_sets_are_dropped_by_name() -> None:
    items = [item("sum:1", "What is  1 + 2?"), item("user:1", "Hello!", benchmark="user_eval", user_id="eve")]
    history = [*asked("before"), {"role": "assistant", "content": "x"}, *asked(" WHAT is\n1 + 2? ")]
    frame = unite([pair("a", prompt=history), pair("b", prompt=asked("What is 1 + 3?")), pair("c")], items=items)
    assert kept(frame) == ["b"]
    told = frame.select("pair_id", "drop_reasons", "contaminated_by", "contaminated_how").rows()
    assert told[0] == ("a", ["contaminated"], "sum:1", "whole_item")
    assert told[2] == ("c", ["contaminated"], "user:1", "whole_item")
    assert merge.contamination(frame).select("pair_id", "prompt_id", "kind").rows() == [
        ("a", "sum:1", "whole_item"),
        ("c", "user:1", "whole_item"),
    ]


def test_a_pair_that_stays_is_never_lost_to_one_that_repeats_an_item() -> None:
    words = " ".join(f"word{number}" for number in range(200))
    items = [item("sum:1", "What is 1 + 2?")]
    pairs = [
        pair("a", prompt=asked(f"{words} What is 1 + 2?"), chosen="good"),
        pair("b", prompt=asked(f"{words} What is 1 + 3?"), chosen="good"),
    ]
    assert kept(unite(pairs)) == ["a"]
    assert kept(unite(pairs, items=items)) == ["b"]


def test_only_named_benchmarks_count_and_a_name_without_items_is_an_error() -> None:
    items = table(EVAL_PROMPTS, [item("1", "one"), item("2", "two", benchmark="user_eval")])
    assert merge.eval_items(items, None)["prompt_id"].to_list() == ["1", "2"]
    assert merge.eval_items(items, ("user_eval",))["prompt_id"].to_list() == ["2"]
    with pytest.raises(ValueError, match="no item of mt_bench; it has arithmetic, user_eval"):
        merge.eval_items(items, ("arithmetic", "mt_bench"))


def test_the_split_is_by_user_and_stays_as_data_grows() -> None:
    many = [pair(f"{user}-{number}", user_id=f"u{user}") for user in range(60) for number in range(3)]
    frame = unite(many)
    assert frame.group_by("user_id").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 60
    share = frame.filter(pl.col("split") == "validation")["user_id"].n_unique() / 60
    assert 0.05 < share < 0.4
    assert unite(many[:30]).join(frame, on=["pair_id", "split"], how="anti").is_empty()
    wider = {name for name in map(str, range(500)) if split_of(name, 0.3) == "validation"}
    assert {name for name in map(str, range(500)) if split_of(name, 0.1) == "validation"} < wider


def test_users_who_may_be_one_person_validate_together() -> None:
    many = [pair(str(user), user_id=f"u{user}") for user in range(60)]
    alone = dict(unite(many).select("user_id", "split").iter_rows())
    users = [{"user_id": f"u{user}", "split_group": f"u{user - user % 3}"} for user in range(60)]
    assert dict(unite(many, users=users).select("user_id", "split").iter_rows()) == {
        row["user_id"]: alone[row["split_group"]] for row in users
    }
    assert unite(many, users=[{"user_id": name, "split_group": name} for name in alone]).equals(unite(many))


def test_pairs_without_a_user_are_split_one_by_one() -> None:
    frame = unite(reasoning=[pair(f"e{number}", user_id=None, prompt=asked(f"sum {number}")) for number in range(80)])
    assert set(frame["split"]) == {"train", "validation"}


def test_the_order_of_rows_changes_nothing() -> None:
    many = [pair(f"{number}", chosen=f"good {number % 4}") for number in range(12)]
    assert unite(many).equals(unite(many[::-1]))


def test_nothing_offered_gives_an_empty_table() -> None:
    assert unite().is_empty()


# checks


SOURCES = [
    table(REWRITE_PAIRS, [pair("a"), pair("b", chosen="good a"), pair("x", is_kept=False)]),
    table(REWARD_PAIRS, [pair("c")]),
    REASONING_PAIRS.empty(),
    table(EXPLICIT_PAIRS, [pair("d", kind="edit")]),
]


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        (lambda frame: frame, {}),
        (lambda frame: frame.filter(pl.col("pair_id") != "b"), {"pairs": 3, "lost_pairs": 1}),
        (lambda frame: pl.concat([frame, frame.filter(pl.col("pair_id") == "c")]), {"pairs": 5, "made_up_pairs": 1}),
        (lambda frame: frame.with_columns(pl.col("pair_id").replace({"b": "x"})), {"lost_pairs": 1, "made_up_pairs": 1}),
        (lambda frame: frame.with_columns(is_kept=pl.lit(True)), {"pairs_without_a_word_why": 1}),
    ],
)
def test_no_offered_pair_is_lost_or_made_up_or_dropped_without_a_word(change: Any, numbers: dict[str, int]) -> None:
    frame = unite([pair("a"), pair("b", chosen="good a")], [pair("c", condition="own")], explicit=[pair("d", kind="edit")])
    finding = pair_checks.offered_pairs_are_conserved(change(frame).lazy(), *(source.lazy() for source in SOURCES))
    base = {"offered_pairs": 4, "pairs": 4, "lost_pairs": 0, "made_up_pairs": 0, "pairs_without_a_word_why": 0}
    assert finding.numbers == base | numbers
    assert finding.passed is not bool(numbers)


LONG = "a train leaves the station at noon and runs at ninety miles an hour until it stops"


@pytest.mark.parametrize(
    ("text", "is_hit"),
    [
        ("Well. Tell me: A TRAIN leaves the station at noon, and runs at ninety miles an hour! Why?", True),
        ("A train leaves the station at noon and walks at ninety miles an hour until it stops", False),
        ("what is 1 + 2, please", True),
        ("what is 1 + 3, please", False),
        ("hello", True),
        ("hello there", False),
        ("", False),
    ],
)
def test_a_planted_evaluation_prompt_is_dropped_and_caught_by_the_check_if_it_is_not(text: str, is_hit: bool) -> None:
    items = [item("1", LONG), item("2", "What is 1 + 2?"), item("3", "Hello!"), item("4", "?!")]
    prompts = table(EVAL_PROMPTS, items).lazy()
    prompt = [*asked("before"), {"role": "assistant", "content": LONG}, *asked(text)]
    frame = unite([pair("a", prompt=prompt)], items=items)
    assert kept(frame) == ([] if is_hit else ["a"])
    assert pair_checks.pairs_are_decontaminated(frame.lazy(), prompts, DEFAULTS).passed
    leaked = pair_checks.pairs_are_decontaminated(unite([pair("a", prompt=prompt)]).lazy(), prompts, DEFAULTS)
    assert leaked.passed is not is_hit
    assert leaked.numbers["kept_pairs_that_repeat_an_item"] == is_hit


def test_a_kept_pair_that_an_embedding_saw_does_not_pass_and_no_text_is_shown() -> None:
    told = {"contaminated_by": "1", "contaminated_how": "embedding", "contamination_similarity": 0.97}
    rows = [pair("a", prompt=asked("secret words"), **told), pair("b", prompt=asked("secret words"), **told | {"is_kept": False})]
    finding = pair_checks.pairs_are_decontaminated(
        table(PREFERENCE_PAIRS, rows).lazy(), table(EVAL_PROMPTS, [item("1", "unlike")]).lazy(), DEFAULTS
    )
    assert (finding.passed, finding.numbers["kept_examples"], finding.numbers["dropped/embedding"]) == (False, ["a"], 2)
    assert "secret" not in str(finding.numbers)
    assert 0.97 in finding.numbers["dropped_examples"]["similarity"]


@pytest.mark.parametrize("fault", ["", "leak", "loss"])
def test_the_checks_block_what_comes_after(tmp_path: Any, fault: str) -> None:
    lake, items = Lake(root=str(tmp_path)), [item("1", LONG)]
    offered = [pair("a", prompt=asked(LONG)), pair("b")]
    lake.write("rewrite_pairs", table(REWRITE_PAIRS, offered).with_columns(month=pl.lit("2023-04")), ["2023-04"])
    lake.write("reward_pairs", REWARD_PAIRS.empty(), ["2023-04"])
    lake.write("reasoning_pairs", REASONING_PAIRS.empty())
    lake.write("explicit_pairs", EXPLICIT_PAIRS.empty(), ["2023-04"])
    lake.write("eval_prompts", table(EVAL_PROMPTS, items))
    frame = unite(offered, items=[] if fault == "leak" else items)
    frame = frame.filter("is_kept") if fault == "loss" else frame

    @dg.asset
    def preference_pairs() -> dg.MaterializeResult[pl.DataFrame]:
        return result("preference_pairs", frame)

    @dg.asset(deps=[preference_pairs])
    def after() -> None:
        """Comes after."""

    sample, names = profiles.load("sample"), {"offered_pairs_are_conserved", "pairs_are_decontaminated"}
    profile = sample.model_copy(update={"pairs": PairSettings(decontamination=DEFAULTS)})
    specs = upstream(profile, "rewrite_pairs", "reward_pairs", "reasoning_pairs", "explicit_pairs", "eval_prompts")
    definitions = dg.Definitions(
        assets=[preference_pairs, after, *specs],
        asset_checks=built(profile, *(each for each in preferences.pairs_are_sound if each.name in names)),
        jobs=[dg.define_asset_job("everything")],
        resources={"io_manager": TableIOManager(root=str(tmp_path)), "lake": lake, "settings": Settings(profile)},
    )
    done = definitions.resolve_job_def("everything").execute_in_process(raise_on_error=False)
    found = {evaluation.check_name: evaluation.passed for evaluation in done.get_asset_check_evaluations()}
    assert found == {"offered_pairs_are_conserved": fault != "loss", "pairs_are_decontaminated": fault != "leak"}
    assert bool(done.asset_materializations_for_node("after")) is (not fault)
