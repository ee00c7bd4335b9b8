"""Follow-ups as privileged context: which replies count, what is dropped, how the teacher is told, and the shuffled control."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import FOLLOW_UP_EXAMPLES, PERSONAS, PREFERENCE_PAIRS, TURNS, USERS, Table
from rlhi_dagster.preferences.decontamination import HITS
from rlhi_dagster.preferences.merge import split_of
from rlhi_dagster.preferences.pair_checks import no_held_out_user_in_training
from rlhi_dagster.profiles import load
from rlhi_dagster.training.budget import shown
from rlhi_dagster.training.follow_ups import FollowUps, as_pairs, each_example_has_its_follow_up, follow_up_examples, offered, told
from rlhi_dagster.training.pair_sets import TRAINING_ROWS, NoDataError, PairSets, drawn_sets, equal_count, without_data
from rlhi_dagster.training.recipes import Recipe, load_all, training_settings
from rlhi_dagster.training.settings import SDPOSettings

START = datetime(2026, 10, 1, tzinfo=UTC)
SDPO = {name: recipe for name, recipe in load_all().items() if recipe.method == "sdpo"}
REWRITES = Recipe(description="x", method="dpo", sources=("rewrites",))


def fill(table: Table, records: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(table.columns), **record} for record in records], schema=table.schema)


def conversation(name: str, user: str, *said: str | None) -> list[dict[str, Any]]:
    """Requests and replies by turns; the last may be a request that nobody answered."""
    return [
        {
            "turn_id": f"{name}:{place}",
            "conversation_id": name,
            "user_id": user,
            "turn": place // 2 + 1,
            "asked_at": START + timedelta(minutes=place),
            "prompt": said[place],
            "reply_id": f"{name}:{place + 1}",
            "reply": said[place + 1] if place + 1 < len(said) else None,
        }
        for place in range(0, len(said), 2)
    ]


def users(**splits: str) -> pl.DataFrame:
    return fill(USERS, [{"user_id": name, "split": split, "split_group": name} for name, split in splits.items()])


def judged(drew: pl.DataFrame, known: pl.DataFrame, hits: tuple[tuple[str, str], ...] = (), seed: int = 7) -> pl.DataFrame:
    found = pl.DataFrame([(pair, item, "ngram", None) for pair, item in hits], schema=HITS, orient="row")
    made = follow_up_examples(drew, found, known, 0.9, 0.3, seed)
    assert made.schema == FOLLOW_UP_EXAMPLES.schema
    return made


def many(count: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Conversations of two turns, two of each user."""
    said = (conversation(f"c{n}", f"u{n // 2}", f"request {n}", f"reply {n}", f"follow-up {n}", "done") for n in range(count))
    turns = fill(TURNS, [row for rows in said for row in rows])
    known = users(**{f"u{number // 2}": "train" for number in range(count)})
    return offered(turns.lazy(), known, PERSONAS.empty()), known, turns


def test_an_example_is_a_logged_reply_with_the_next_message_of_its_user_and_the_persona_of_the_moment() -> None:
    rows = [
        *conversation("a", "ann", "first?", "one", "shorter", "two", "thanks"),
        *conversation("b", "ann", "alone?", "only"),
        *conversation("c", "ben", "held out?", "no", "really", "no"),
    ]
    line = {"persona_line_id": "l1", "user_id": "ann", "slot": "length", "line": "wants short answers", "valid_from": START}
    found = offered(fill(TURNS, rows).lazy(), users(ann="train", ben="test"), fill(PERSONAS, [line]))
    by_turn = {row["turn_id"]: row for row in found.to_dicts()}
    assert set(by_turn) == {"a:0", "a:2"}, "ben is held out, and nobody said anything after the other reply"
    first, second = by_turn["a:0"], by_turn["a:2"]
    assert (first["reply"], first["follow_up"], first["follow_up_turn_id"]) == ("one", "shorter", "a:2")
    assert (second["reply"], second["follow_up"], second["follow_up_turn_id"]) == ("two", "thanks", "a:4"), "a last word counts"
    assert [(each["role"], each["content"]) for each in second["prompt"]] == [("user", "first?"), ("assistant", "one"), ("user", "shorter")]
    assert (first["persona"], second["persona"], second["persona_line_ids"]) == ("", "- wants short answers", ["l1"])


def test_what_is_dropped_says_why_and_has_no_part_in_the_control() -> None:
    rows = [
        *conversation("a", "ann", "what?", "the same reply", "shorter", "x"),
        *conversation("b", "ann", "what?", "the same reply", "shorter", "y"),
        *conversation("c", "ann", "what?", "the same reply", "longer", "z"),
        *conversation("d", "ann", "what now?", "  ", "hello?", "hi"),
        *conversation("e", "ann", "what else?", "I'm sorry, but I can't help with that.", "do it", "no"),
        *conversation("f", "ann", "an item?", "the answer", "thanks", "bye"),
        *conversation("g", "ben", "who?", "me", "you?", "yes"),
    ]
    turns, known = fill(TURNS, rows), users(ann="train", ben="train")
    drew = offered(turns.lazy(), known, PERSONAS.empty())
    ids = dict(drew.select("turn_id", "pair_id").iter_rows())
    found = judged(drew, known, ((ids["f:0"], "item"),))
    reasons = {row["turn_id"]: row["drop_reasons"] for row in found.filter(source="follow_ups").to_dicts()}
    first, second = sorted(("a:0", "b:0"), key=lambda turn: ids[turn])
    assert reasons == {
        first: [],
        second: ["exact_duplicate"],
        "c:0": [],  # another follow-up to the same reply
        "d:0": ["empty_reply"],
        "e:0": ["reply_is_refusal"],
        "f:0": ["contaminated"],
        "g:0": [],
    }
    assert set(found.filter(source="follow_ups_shuffled")["turn_id"]) <= {first, "c:0", "g:0"}
    assert each_example_has_its_follow_up(found.lazy(), turns.lazy()).passed


def test_the_control_has_the_same_replies_in_each_split_each_with_another_users_follow_up() -> None:
    drew, known, turns = many(120)
    found = judged(drew, known)
    given, control = (found.filter(source=source.value).sort("turn_id") for source in FollowUps)
    same = ["turn_id", "user_id", "prompt", "reply", "split", "persona", "asked_at"]
    assert given.select(same).equals(control.select(same))
    for split in ("train", "validation"):
        texts = [set(each.filter(split=split)["follow_up"]) for each in (given, control)]
        assert texts[0] == texts[1] != set()
    givers = dict(turns.select("turn_id", "user_id").iter_rows())
    assert all(givers[turn] != user for turn, user in control.select("follow_up_turn_id", "user_id").iter_rows())
    assert judged(drew.reverse(), known).sort("pair_id").equals(found.sort("pair_id"))
    assert not judged(drew, known, seed=8).sort("pair_id").equals(found.sort("pair_id"))
    assert found["pair_id"].is_unique().all()
    assert all(split == split_of(user, 0.3) for user, split in found.select("user_id", "split").iter_rows())


def test_a_user_with_more_than_half_of_the_replies_keeps_none_of_the_own_follow_ups_in_the_control() -> None:
    said = [conversation(f"a{n}", "ann", f"q{n}", f"r{n}", f"f{n}", "x") for n in range(5)]
    turns = fill(TURNS, [*(row for rows in said for row in rows), *conversation("b", "ben", "q", "r", "f", "x")])
    known = users(ann="train", ben="train")
    found = follow_up_examples(offered(turns.lazy(), known, PERSONAS.empty()), pl.DataFrame(schema=HITS), known, 0.9, 1e-9, 7)
    control = found.filter(source="follow_ups_shuffled")
    assert sorted(control["user_id"]) == ["ann", "ben"]
    assert each_example_has_its_follow_up(found.lazy(), turns.lazy()).passed


def test_the_check_sees_other_words_another_place_an_own_control_and_a_silent_drop() -> None:
    drew, known, turns = many(12)
    found = judged(drew, known)
    assert each_example_has_its_follow_up(found.lazy(), turns.lazy()).passed
    is_given = pl.col("source") == "follow_ups"
    own = found.filter(is_given).select("turn_id", own_id="follow_up_turn_id", own="follow_up")
    undealt = found.join(own, on="turn_id").with_columns(follow_up_turn_id="own_id", follow_up="own")
    for broken, fault in (
        (found.with_columns(follow_up=pl.lit("made up")), "other_words"),
        (
            found.with_columns(follow_up_turn_id="turn_id", follow_up=pl.col("prompt").list.last().struct.field("content")),
            "not_the_next_message",
        ),
        (undealt, "of_the_same_user_in_the_control"),
        (found.with_columns(is_kept=pl.lit(value=False)), "without_a_word_why"),
    ):
        finding = each_example_has_its_follow_up(broken.lazy(), turns.lazy())
        assert not finding.passed
        assert finding.numbers[fault] > 0
    held_out = users(**{f"u{number}": "test" if number == 3 else "train" for number in range(6)})
    assert not no_held_out_user_in_training(found.lazy(), held_out.lazy()).passed


def test_the_teacher_is_asked_the_same_with_the_follow_up_in_the_last_message() -> None:
    drew, known, _ = many(8)
    examples = judged(drew.with_columns(persona=pl.lit("- short"), follow_up=pl.lit("shorter <|eot_id|> {request}")), known)
    rows = drawn_sets(as_pairs(examples), SDPO, None, 0.3, 7)["sdpo_follow_ups"].train
    assert rows.schema == TRAINING_ROWS
    for form in ("dialogue", "instruction"):
        asked = told(rows, examples, form)  # type: ignore[arg-type]
        assert asked.drop("told").equals(rows)
        for row in asked.to_dicts():
            *before, last = row["told"]
            assert before == row["prompt"][:-1]
            assert [each["role"] for each in row["told"]] == ["system", "user"]
            request = row["prompt"][-1]["content"]
            assert (f"<request>\n{request}\n</request>" if form == "instruction" else f"{request}\n\n") in last["content"]
            assert "<|eot_id|>" not in last["content"]
            assert "{request}" in last["content"], "words of a user are not taken for the prompt's"
            assert (last["content"].count("\n") > 2) is (form == "instruction")
    members, distinct = shown({"sdpo": PairSets(asked, asked.head(0))}, {"sdpo": 99})
    assert len(members) == len(rows)
    assert {row[-1]["content"] for row in distinct["prompt"].to_list()} == {row[-1]["content"] for row in asked["told"].to_list()}


def test_recipes_on_follow_ups_have_as_many_as_the_others_and_cut_none_of_them_down() -> None:
    drew, known, _ = many(40)
    examples = as_pairs(judged(drew, known))
    kept = len(examples.filter(source="follow_ups", split="train"))
    pairs = as_pairs(judged(drew, known)).filter(source="follow_ups").with_columns(source=pl.lit("rewrites"), rejected=pl.lit("no"))
    arms = {**SDPO, "dpo": REWRITES}
    few, more = pairs.filter(split="train").head(5), pl.concat([pairs, pairs.with_columns(pl.format("x{}", "pair_id").alias("pair_id"))])
    for offered_pairs, equal in ((few, 5), (more, 2 * kept)):
        rows = pl.concat([offered_pairs, examples])
        assert equal_count(rows, arms, None) == equal
        sets = drawn_sets(rows, arms, None, 0.2, 7)
        assert {name: len(each.train) for name, each in sets.items()} == dict.fromkeys(SDPO, min(equal, kept)) | {"dpo": equal}
    assert equal_count(examples, SDPO, None) == kept
    assert without_data(pl.concat([few, examples]), arms) == {}


def test_recipes_without_follow_ups_are_left_out_unless_there_is_no_other() -> None:
    arms = {**SDPO, "base": Recipe(description="x", method="none")}
    told_why = (
        "recipe sdpo_follow_ups: no kept training example of source follow_ups; see turns, and the drop reasons in follow_up_examples"
    )
    drew, known, _ = many(4)
    pairs = as_pairs(judged(drew, known)).with_columns(source=pl.lit("rewrites"), split=pl.lit("train"))
    assert without_data(pairs, {**arms, "dpo": REWRITES})["sdpo_follow_ups"] == told_why
    with pytest.raises(NoDataError, match=f"{told_why}; recipe sdpo_follow_ups_shuffled: no kept"):
        without_data(PREFERENCE_PAIRS.empty(), arms)


def test_without_settings_of_its_own_sdpo_trains_like_dpo_but_for_what_is_dpos() -> None:
    sample = load("sample").model_copy(update={"sdpo": None})
    found = training_settings(SDPO, sample)["sdpo_follow_ups"]
    assert isinstance(found, SDPOSettings)
    assert (found.learning_rate, found.epochs, found.max_length) == (sample.dpo.learning_rate, sample.dpo.epochs, sample.dpo.max_length)
    assert (found.form, found.max_memorisation) == ("instruction", 0.2)
    own = SDPOSettings(learning_rate=1e-5)
    assert training_settings(SDPO, sample.model_copy(update={"sdpo": own}))["sdpo_follow_ups"] == own
