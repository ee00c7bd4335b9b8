"""The union of pairs: sources, duplicates, contamination, split."""

from __future__ import annotations

from typing import Any

import polars as pl

from rlhi_dagster.preferences.union import preference_pairs, split_of
from rlhi_dagster.tables import EVAL_PROMPTS, PREFERENCE_PAIRS, REASONING_PAIRS, REWARD_PAIRS, REWRITE_PAIRS, Table


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def pair(pair_id: str, **more: Any) -> dict[str, Any]:
    sides = {"chosen": f"good {pair_id}", "rejected": "bad", "persona": "- short", "persona_line_ids": ["p1"]}
    return {"pair_id": pair_id, "user_id": "ann", "turn_id": f"t-{pair_id}", "prompt": asked("hello"), **sides, "is_kept": True} | more


def unite(
    rewrites: list[dict[str, Any]] = [],  # noqa: B006 - never changed
    rewards: list[dict[str, Any]] = [],  # noqa: B006
    reasoning: list[dict[str, Any]] = [],  # noqa: B006
    items: list[dict[str, Any]] = [],  # noqa: B006
    fraction: float = 0.2,
) -> tuple[pl.DataFrame, dict[str, int]]:
    frame, counts = preference_pairs(
        table(REWRITE_PAIRS, rewrites),
        table(REWARD_PAIRS, rewards),
        table(REASONING_PAIRS, reasoning),
        table(EVAL_PROMPTS, items),
        fraction,
    )
    assert frame.schema == PREFERENCE_PAIRS.schema
    assert counts["offered"] == counts["duplicates"] + counts["contaminated"] + counts["kept"]
    assert counts["kept"] == len(frame)
    return frame, counts


def test_every_source_arrives_with_its_provenance() -> None:
    rewards = [
        pair(f"w-{condition}", condition=condition, margin=1.5, reward_model="rm", model="m") for condition in ("own", "shuffled", "none")
    ]
    frame, counts = unite([pair("r", strategy="feedback", follow_up_id="f1")], rewards, [pair("e", user_id=None, turn_id=None)])
    rows = {row["pair_id"]: row for row in frame.to_dicts()}
    assert {name: (row["source"], row["strategy"]) for name, row in rows.items()} == {
        "r": ("rewrites", "feedback"),
        "w-own": ("rewards", "best_of_n"),
        "w-shuffled": ("rewards_shuffled", "best_of_n"),
        "w-none": ("rewards_none", "best_of_n"),
        "e": ("reasoning", "corrected"),
    }
    assert (rows["r"]["follow_up_id"], rows["r"]["persona_line_ids"], rows["r"]["margin"]) == ("f1", ["p1"], None)
    assert (rows["w-own"]["margin"], rows["w-own"]["reward_model"]) == (1.5, "rm")
    assert (rows["e"]["user_id"], rows["e"]["persona"], rows["e"]["persona_line_ids"]) == (None, "", [])
    assert counts["offered"] == 5


def test_dropped_pairs_stay_behind() -> None:
    dropped = {"is_kept": False, "drop_reason": "identical_sides"}
    frame, counts = unite([pair("a"), pair("b", **dropped)], [pair("c", condition="own", **dropped)], [pair("d", **dropped)])
    assert (frame["pair_id"].to_list(), counts["offered"]) == (["a"], 1)


def test_a_repeated_pair_is_kept_once_per_source_under_its_smallest_id() -> None:
    same = {"chosen": "good", "rejected": "bad"}
    frame, counts = unite([pair("b", **same), pair("a", **same), pair("c", **same, persona="- long")], [pair("d", condition="own", **same)])
    assert frame["pair_id"].to_list() == ["a", "c", "d"]
    assert counts["duplicates"] == 1


def test_requests_of_fixed_benchmarks_are_left_out_whatever_their_case_and_spacing() -> None:
    items = [{"prompt_id": "1", "benchmark": "arithmetic", "prompt": asked("What is  1 + 2?")}]
    history = [*asked("before"), {"role": "assistant", "content": "x"}, *asked(" WHAT is\n1 + 2? ")]
    frame, counts = unite([pair("a", prompt=history), pair("b", prompt=asked("What is 1 + 3?"))], items=items)
    assert (frame["pair_id"].to_list(), counts["contaminated"]) == (["b"], 1)


def test_requests_of_held_out_users_may_recur() -> None:
    items = [{"prompt_id": "1", "benchmark": "user_eval", "user_id": "eve", "prompt": asked("hello")}]
    assert unite([pair("a")], items=items)[1]["kept"] == 1


def test_the_split_is_by_user_and_stays_as_data_grows() -> None:
    many = [pair(f"{user}-{number}", user_id=f"u{user}") for user in range(60) for number in range(3)]
    frame, _ = unite(many)
    assert frame.group_by("user_id").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 60
    share = frame.filter(pl.col("split") == "validation")["user_id"].n_unique() / 60
    assert 0.05 < share < 0.4
    part, _ = unite(many[:30])
    assert part.join(frame, on=["pair_id", "split"], how="anti").is_empty()
    wider = {name for name in map(str, range(500)) if split_of(name, 0.3) == "validation"}
    assert {name for name in map(str, range(500)) if split_of(name, 0.1) == "validation"} < wider


def test_pairs_without_a_user_are_split_one_by_one() -> None:
    frame, _ = unite(reasoning=[pair(f"e{number}", prompt=asked(f"sum {number}")) for number in range(80)])
    assert set(frame["split"]) == {"train", "validation"}


def test_the_order_of_rows_changes_nothing() -> None:
    many = [pair(f"{number}", chosen=f"good {number % 4}") for number in range(12)]
    assert unite(many)[0].equals(unite(many[::-1])[0])


def test_nothing_offered_gives_an_empty_table() -> None:
    assert unite()[1] == {"offered": 0, "duplicates": 0, "contaminated": 0, "kept": 0}
