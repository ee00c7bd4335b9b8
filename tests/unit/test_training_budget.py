"""The token budget: fates, their table and check, and that they are what training does."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from rlhi_dagster.base.tables import PREFERENCE_PAIRS, TOKEN_BUDGET
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.graph.metadata import plot
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.preferences import Source
from rlhi_dagster.profiles import load
from rlhi_dagster.training import recipes
from rlhi_dagster.training.budget import PAIR_TOKENS, SETS, Fate, fates, lengths, pairs_fit, shown, token_budget
from rlhi_dagster.training.pair_sets import TRAINING_ROWS, PairSets, drawn_sets
from rlhi_dagster.training.recipes import Recipe
from rlhi_dagster.workers.tokens import count

WORDS = ["tell", "me", "more", "about", "the", "long", "short", "river", "please", "now"]


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def rows(*prompts: Any, chosen: str = "good", rejected: str = "bad") -> pl.DataFrame:
    told = [(f"p{number}", prompt, chosen, rejected) for number, prompt in enumerate(prompts)]
    return pl.DataFrame(told, schema=TRAINING_ROWS, orient="row")


def fates_of(*counts: tuple[int, int, int], limit: int = 10) -> pl.DataFrame:
    keys = [str(number) for number in range(len(counts))]
    tokens = pl.DataFrame([(key, *given) for key, given in zip(keys, counts, strict=True)], schema=PAIR_TOKENS, orient="row")
    return fates(pl.DataFrame([("dpo", "train", key, limit) for key in keys], schema=SETS, orient="row"), tokens)


def test_a_pairs_fate_is_decided_by_its_longer_side_and_the_room_that_its_prompt_leaves() -> None:
    told = fates_of((4, 10, 9), (4, 10, 11), (4, 11, 6), (10, 12, 13), (9, 12, 13), (12, 15, 16))
    assert told["fate"].to_list() == ["fits", "pair_too_long", "pair_too_long", "prompt_too_long", "pair_too_long", "prompt_too_long"]
    assert told.select("longest", "both").row(1) == (11, 21)


def test_a_pair_that_was_not_counted_is_an_error() -> None:
    sets = pl.DataFrame([("dpo", "train", "a", 10)], schema=SETS, orient="row")
    with pytest.raises(ValueError, match="1 pairs of the training sets have no token counts"):
        fates(sets, PAIR_TOKENS.to_frame())


def test_the_table_has_every_fate_of_every_recipe_and_loses_no_pair() -> None:
    told = fates_of((4, 10, 9), (4, 8, 8), (4, 10, 11), (10, 12, 13))
    table = token_budget(told, {"dpo": 10, "sft": 20})
    assert table.schema == TOKEN_BUDGET.schema
    assert len(table) == 2 * 2 * len(Fate)
    assert table["pairs"].sum() == len(told)
    found = {(row["recipe"], row["split"], row["fate"]): row for row in table.to_dicts()}
    fitting = found["dpo", "train", "fits"]
    assert [fitting[name] for name in ("pairs", "median_tokens", "most_tokens", "total_tokens")] == [2, 9.0, 10, 35]
    empty = found["sft", "validation", "pair_too_long"]
    assert [empty[name] for name in ("pairs", "max_length_tokens", "median_tokens", "total_tokens")] == [0, 20, None, 0]


@pytest.mark.parametrize(("long", "passed"), [(0, True), (1, True), (2, False)])
def test_more_than_one_pair_in_a_hundred_left_out_is_a_warning(long: int, passed: bool) -> None:
    told = fates_of(*[(1, 2, 2)] * (100 - long), *[(1, 11, 2)] * long)
    finding = pairs_fit(token_budget(told, {"dpo": 10, "sft": 10}).lazy())
    assert finding.passed is passed
    assert finding.numbers["recipes_off"] == ([] if passed else ["dpo"])
    assert finding.numbers["left_out_share/dpo"] == long / 100
    assert "left_out_share/sft" not in finding.numbers


def test_a_pair_that_recipes_show_alike_is_counted_once() -> None:
    own, other = rows(said("hi"), said("ho")), rows(said("hi"), said("other"))
    sets = {"a": PairSets(own, own.head(0)), "b": PairSets(other, own.tail(1))}
    members, distinct = shown(sets, {"a": 10, "b": 20})
    assert (len(members), len(distinct)) == (5, 3)
    assert set(members["key"]) == set(distinct["key"])
    assert members.group_by("recipe", "max_length_tokens").len().sort("recipe").rows() == [("a", 10, 2), ("b", 20, 3)]


def test_the_sets_are_those_that_the_recipes_train_on() -> None:
    given = [
        dict.fromkeys(PREFERENCE_PAIRS.columns)
        | {"pair_id": f"{source}{number:02d}", "source": source, "split": "train" if number < 20 else "validation", "persona": "- short"}
        | {"prompt": said(f"hi {number}"), "chosen": "good", "rejected": "bad", "is_kept": number % 5 > 0}
        for source in ("rewrites", "rewards")
        for number in range(30)
    ]
    pairs = pl.DataFrame(given, schema=PREFERENCE_PAIRS.schema, orient="row")
    arms = {
        "base": Recipe(description="x", method="none"),
        "a": Recipe(description="x", method="dpo", sources=(Source.REWRITES,)),
        "b": Recipe(description="x", method="dpo", sources=(Source.REWARDS,), persona="none"),
    }
    sets = drawn_sets(pairs, arms, 10, 0.2, 7)
    assert {name: (len(each.train), len(each.validation)) for name, each in sets.items()} == {"a": (10, 2), "b": (10, 2)}
    dropped = set(pairs.filter(~pl.col("is_kept"))["pair_id"])
    assert not dropped & {pair_id for each in sets.values() for frame in each.by_split.values() for pair_id in frame["pair_id"]}
    assert drawn_sets(pairs, arms, None, 0.2, 7)["a"].train["pair_id"].len() == 16


def test_the_limit_is_the_recipes_own() -> None:
    profile = load("sample")
    recipe = recipes.load("dpo_rewrites").model_copy(update={"settings": {"max_length": 77}})
    assert profile.training_of(recipe).max_length == 77
    assert profile.training_of(recipes.load("dpo_rewrites")).max_length == profile.dpo.max_length


def test_the_lengths_are_drawn_for_recipes_with_and_without_pairs() -> None:
    drawn = plot(lengths(fates_of((4, 10, 9), (4, 8, 8)), {"dpo": 10, "sft": 20}))
    assert drawn.value.startswith("![plot](data:image/png;base64,")


# tokens


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from rlhi_dagster.workers.train_policy import build_tokenizer

    return build_tokenizer([" ".join(WORDS)] * 20, 300)


@pytest.mark.parametrize("limit", [30, 60, 90])
def test_the_budget_and_training_leave_out_the_same_pairs(tokenizer: Any, limit: int) -> None:
    from rlhi_dagster.workers.train_loop import preflight
    from rlhi_dagster.workers.train_pairs import conversations

    drawn = random.Random(limit)

    def text(most: int) -> str:
        return " ".join(drawn.choices(WORDS, k=drawn.randrange(1, most)))

    given = []
    for number in range(60):
        persona = [{"role": "system", "content": text(20)}] if number % 2 else []
        history = [*said(text(30)), {"role": "assistant", "content": text(9)}] if number % 3 else []
        given.append((f"p{number:02d}", [*persona, *history, *said(text(20))], text(30), text(30)))
    pairs = pl.DataFrame(given, schema=TRAINING_ROWS, orient="row")
    fitting, left_out, _ = preflight(pairs.to_dicts(), conversations, tokenizer, limit)
    sets, distinct = shown({"dpo": PairSets(pairs, pairs.head(0))}, {"dpo": limit})
    told = token_budget(fates(sets, count(distinct, tokenizer)), {"dpo": limit})
    counts = {row["fate"]: row["pairs"] for row in told.filter(pl.col("split") == "train").to_dicts()}
    assert counts["fits"] == len(fitting)
    assert counts["prompt_too_long"] + counts["pair_too_long"] == left_out
    assert counts["pair_too_long"] > 0
    assert counts["fits" if limit == 90 else "prompt_too_long"] > 0


def test_counts_are_those_of_the_trainers_own_tokens(tokenizer: Any) -> None:
    prompt = [{"role": "system", "content": "short"}, *said("tell me more")]
    (found,) = count(rows(prompt, chosen="about the river", rejected="now").rename({"pair_id": "key"}), tokenizer).to_dicts()
    opened = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": "about the river"}], tokenize=False)
    assert whole.startswith(opened)
    assert found["prompt_tokens"] == len(tokenizer(opened, add_special_tokens=False)["input_ids"])
    assert found["chosen_tokens"] == len(tokenizer(whole, add_special_tokens=False)["input_ids"])
    assert found["prompt_tokens"] < found["rejected_tokens"] < found["chosen_tokens"]


def test_the_worker_counts_once_and_what_it_counted_is_kept(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    model = ModelRef("tiny", "1", str(folder))
    given = rows(said("tell me"), said("tell me more about the river")).rename({"pair_id": "key"})
    counted = []

    @dg.asset
    def budget(context):  # type: ignore[no-untyped-def]
        counted.append(Workers(tmp_path).count_tokens(context, model, given))
        return dg.MaterializeResult()

    assert dg.materialize([budget]).success
    assert counted[0].equals(count(given, tokenizer))
    monkeypatch.setattr(Workers, "_run", lambda *_: pytest.fail("counted again"))
    assert dg.materialize([budget]).success
    assert counted[1].equals(counted[0])
