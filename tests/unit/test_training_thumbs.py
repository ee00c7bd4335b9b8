"""Thumbs as training examples: whose thumb, on which reply, what is dropped, who validates, and the shuffled control."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import EXPLICIT_FEEDBACK, PERSONAS, PREFERENCE_PAIRS, THUMB_EXAMPLES, TURNS, USERS, Table
from rlhi_dagster.preferences.decontamination import HITS
from rlhi_dagster.preferences.merge import split_of
from rlhi_dagster.preferences.pair_checks import no_held_out_user_in_training
from rlhi_dagster.profiles import load
from rlhi_dagster.training.examples import as_pairs
from rlhi_dagster.training.pair_sets import TRAINING_ROWS, NoDataError, drawn_sets, equal_count, without_data
from rlhi_dagster.training.recipes import Recipe, load_all, training_settings
from rlhi_dagster.training.settings import KTOSettings, LoraSettings
from rlhi_dagster.training.thumbs import Thumbs, each_example_has_one_side, offered, thumb_examples

START = datetime(2026, 10, 1, tzinfo=UTC)
KTO = {name: recipe for name, recipe in load_all().items() if recipe.method == "kto"}


def fill(table: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(table.columns), **record} for record in records], schema=table.schema)


def conversation(name: str, user: str, *replies: str, day: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "turn_id": f"{name}:{2 * number}",
            "conversation_id": name,
            "user_id": user,
            "turn": number + 1,
            "asked_at": START + timedelta(days=day, minutes=number),
            "prompt": f"{name} asks {number}",
            "reply_id": f"{name}:{2 * number + 1}",
            "reply": reply,
        }
        for number, reply in enumerate(replies)
    ]


def thumb(turn_id: str, value: float | None, **more: Any) -> dict[str, Any]:
    given = {
        "feedback_id": f"{turn_id}/{value}",
        "turn_id": turn_id,
        "kind": "thumb",
        "value": value,
        "giver": "end_user",
        "given_at": START,
    }
    return given | more


def users(**splits: str) -> pl.DataFrame:
    return fill(USERS, [{"user_id": name, "split": split, "split_group": name} for name, split in splits.items()])


def judged(rated: pl.DataFrame, known: pl.DataFrame, hits: list[tuple[str, str]] = [], seed: int = 7) -> pl.DataFrame:  # noqa: B006
    found = pl.DataFrame([(pair, item, "ngram", None) for pair, item in hits], schema=HITS, orient="row")
    made = thumb_examples(rated, found, known, 0.9, 0.3, seed)
    assert made.schema == THUMB_EXAMPLES.schema
    return made


def many(count: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Replies of a user each, a third of them liked."""
    turns = [row for number in range(count) for row in conversation(f"c{number}", f"u{number}", f"reply {number}")]
    given = [thumb(f"c{number}:0", 1.0 if number % 3 == 0 else -1.0) for number in range(count)]
    known = users(**{f"u{number}": "train" for number in range(count)})
    rated = offered(fill(EXPLICIT_FEEDBACK, given).lazy(), fill(TURNS, turns).lazy(), known, PERSONAS.empty())
    return rated, known


def test_an_example_is_the_logged_reply_with_the_users_latest_thumb_and_the_persona_of_the_moment() -> None:
    turns = conversation("a", "ann", "first", "second", day=2) + conversation("b", "ben", "held out")
    given = [
        thumb("a:0", -1.0),
        thumb("a:2", 1.0),
        thumb("a:2", -1.0, given_at=START + timedelta(days=1)),
        thumb("a:2", 1.0, giver="staff", given_at=START + timedelta(days=2)),
        thumb("a:2", 5.0, kind="rating", given_at=START + timedelta(days=3)),
        thumb("b:0", 1.0),
    ]
    line = {"persona_line_id": "l1", "user_id": "ann", "slot": "length", "line": "wants short answers", "valid_from": START}
    late = line | {"persona_line_id": "l2", "slot": "tone", "line": "wants jokes", "valid_from": START + timedelta(days=5)}
    personas = fill(PERSONAS, [line, late])
    found = offered(fill(EXPLICIT_FEEDBACK, given).lazy(), fill(TURNS, turns).lazy(), users(ann="train", ben="test"), personas)
    rows = {row["turn_id"]: row for row in found.to_dicts()}
    assert set(rows) == {"a:0", "a:2"}, "ben is held out"
    assert (rows["a:0"]["chosen"], rows["a:0"]["rejected"]) == (None, "first")
    assert (rows["a:2"]["chosen"], rows["a:2"]["rejected"]) == (None, "second")
    assert [(each["role"], each["content"]) for each in rows["a:2"]["prompt"]] == [
        ("user", "a asks 0"),
        ("assistant", "first"),
        ("user", "a asks 1"),
    ]
    assert (rows["a:2"]["persona"], rows["a:2"]["persona_line_ids"]) == ("- wants short answers", ["l1"])


@pytest.mark.parametrize("value", [0.0, None, float("nan")])
def test_a_thumb_that_was_taken_back_is_none(value: float | None) -> None:
    given = [thumb("a:0", 1.0), thumb("a:0", value, feedback_id="back", given_at=START + timedelta(days=1))]
    tables = fill(EXPLICIT_FEEDBACK, given).lazy(), fill(TURNS, conversation("a", "ann", "first")).lazy()
    assert offered(*tables, users(ann="train"), PERSONAS.empty()).is_empty()


def test_what_is_dropped_says_why_and_has_no_part_in_the_control() -> None:
    turns = [
        *conversation("a", "ann", "the same reply to the same request"),
        *conversation("b", "ann", "the same reply to the same request"),
        *conversation("c", "ann", "the same reply to the same request"),
        *conversation("d", "ann", "  "),
        *conversation("e", "ann", "the answer of a benchmark"),
    ]
    same = [row | {"prompt": "a asks 0"} if row["conversation_id"] in "abc" else row for row in turns]
    given = [thumb("a:0", 1.0), thumb("b:0", 1.0), thumb("c:0", -1.0), thumb("d:0", 1.0), thumb("e:0", -1.0)]
    known = users(ann="train")
    rated = offered(fill(EXPLICIT_FEEDBACK, given).lazy(), fill(TURNS, same).lazy(), known, PERSONAS.empty())
    ids = dict(rated.select("turn_id", "pair_id").iter_rows())
    found = judged(rated, known, [(ids["e:0"], "item")])
    rows = {row["turn_id"]: row for row in found.filter(source="thumbs").to_dicts()}
    first, second = sorted(("a:0", "b:0"), key=lambda turn: ids[turn])
    assert {turn: row["drop_reasons"] for turn, row in rows.items()} == {
        first: [],
        second: ["exact_duplicate"],
        "c:0": [],  # liked and disliked: no duplicate, and neither is more right
        "d:0": ["empty_reply"],
        "e:0": ["contaminated"],
    }
    assert rows[second]["duplicate_of"] == ids[first]
    assert rows["e:0"]["contaminated_by"] == "item"
    assert set(found.filter(source="thumbs_shuffled")["turn_id"]) == {first, "c:0"}
    assert each_example_has_one_side(found.lazy()).passed


def test_the_control_has_the_same_replies_with_as_many_thumbs_of_each_kind_in_each_split_dealt_out_anew() -> None:
    rated, known = many(120)
    found = judged(rated, known)
    given, control = (found.filter(source=source.value).sort("turn_id") for source in Thumbs)
    same = ["turn_id", "user_id", "prompt", "split", "persona"]
    assert given.select(same).equals(control.select(same))
    reply = pl.coalesce("chosen", "rejected").alias("reply")
    assert given.select(reply).equals(control.select(reply))
    for split in ("train", "validation"):
        assert given.filter(split=split)["chosen"].count() == control.filter(split=split)["chosen"].count() > 0
    agree = (given["chosen"].is_null() == control["chosen"].is_null()).mean()
    assert 0.4 < agree < 0.7, "by chance 5 of 9"
    assert judged(rated.reverse(), known).sort("pair_id").equals(found.sort("pair_id"))
    assert not judged(rated, known, seed=8).sort("pair_id").equals(found.sort("pair_id"))
    assert found["pair_id"].is_unique().all()


def test_who_validates_is_who_validates_among_pairs() -> None:
    rated, known = many(60)
    found = judged(rated, known)
    assert {split for _, split in found.select("user_id", "split").iter_rows()} == {"train", "validation"}
    assert all(split == split_of(user, 0.3) for user, split in found.select("user_id", "split").iter_rows())


def test_the_check_sees_a_reply_without_a_thumb_a_silent_drop_and_another_control() -> None:
    found = judged(*many(12))
    assert each_example_has_one_side(found.lazy()).passed
    one = pl.col("pair_id") == found.filter(source="thumbs", split="train")["pair_id"][0]
    for broken in (
        found.with_columns(pl.when(one).then(None).otherwise("chosen").alias("chosen"), pl.when(~one).then("rejected").alias("rejected")),
        found.with_columns(is_kept=~one),
        found.filter(pl.col("source") == "thumbs"),
    ):
        assert not each_example_has_one_side(broken.lazy()).passed
    held_out = users(**{f"u{number}": "test" if number == 3 else "train" for number in range(12)})
    assert not no_held_out_user_in_training(found.lazy(), held_out.lazy()).passed


def test_recipes_draw_all_examples_as_rows_with_one_side_and_take_nothing_from_pairs() -> None:
    examples = judged(*many(30))
    pairs = pl.concat([PREFERENCE_PAIRS.empty(), as_pairs(examples)])
    sets = drawn_sets(pairs, load_all(), None, 0.2, 7)
    for name, source in (("kto_thumbs", "thumbs"), ("kto_thumbs_shuffled", "thumbs_shuffled")):
        for split, rows in sets[name].by_split.items():
            assert rows.schema == TRAINING_ROWS
            assert set(rows["pair_id"]) == set(examples.filter(source=source, split=split)["pair_id"])
            assert (rows["chosen"].is_null() != rows["rejected"].is_null()).all()
    assert equal_count(pairs, load_all(), None) == 0
    assert without_data(pairs, KTO) == {}


def test_recipes_without_thumbs_of_both_kinds_are_left_out_unless_there_is_no_other() -> None:
    examples = judged(*many(12))
    liked = as_pairs(examples.filter(pl.col("chosen").is_not_null()))
    rewrites = liked.filter(source="thumbs").with_columns(source=pl.lit("rewrites"), rejected=pl.lit("no"))
    arms = {**KTO, "dpo": Recipe(description="x", method="dpo", sources=("rewrites",)), "base": Recipe(description="x", method="none")}
    count = len(liked.filter(source="thumbs", split="train"))
    told = f"recipe kto_thumbs: {count} thumbs up and 0 thumbs down to train on, and KTO needs both; see explicit_feedback"
    assert without_data(pl.concat([liked, rewrites]), arms)["kto_thumbs"].startswith(told)
    assert set(without_data(pl.concat([PREFERENCE_PAIRS.empty(), rewrites]), arms)) == set(KTO)
    with pytest.raises(NoDataError, match=r"recipe kto_thumbs: 0 thumbs up and 0 thumbs down .* recipe kto_thumbs_shuffled: 0 thumbs"):
        without_data(PREFERENCE_PAIRS.empty(), KTO | {"base": arms["base"]})


@pytest.mark.parametrize(("up", "down"), [(10, 10), (90, 10), (3, 400)])
@pytest.mark.parametrize("ratio", [1.0, 4 / 3])
def test_weights_balance_the_two_kinds_within_the_papers_range_and_are_one_on_average(up: int, down: int, ratio: float) -> None:
    liked, disliked = KTOSettings(desirable_ratio=ratio).weights(up, down)
    assert liked * up / (disliked * down) == pytest.approx(ratio)
    assert (liked * up + disliked * down) / (up + down) == pytest.approx(1)


def test_without_settings_of_its_own_kto_trains_like_dpo_but_for_what_is_dpos() -> None:
    sample = load("sample")
    dpo = sample.dpo.model_copy(update={"micro_batch_size": 1, "lora": LoraSettings(rank=3)})
    found = training_settings(KTO, sample.model_copy(update={"dpo": dpo}))["kto_thumbs"]
    assert isinstance(found, KTOSettings)
    assert (found.learning_rate, found.epochs, found.max_length, found.lora) == (dpo.learning_rate, dpo.epochs, dpo.max_length, dpo.lora)
    assert (found.micro_batch_size, found.beta, found.max_memorisation) == (2, 0.1, 0.35)
    own = KTOSettings(learning_rate=1e-5)
    assert training_settings(KTO, sample.model_copy(update={"kto": own}))["kto_thumbs"] == own
