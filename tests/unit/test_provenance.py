"""From a pair to everything that made it: `rlhi why`, and the same join in SQL."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.cli import why_command
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.provenance import Lineage
from rlhi_dagster.provenance.lookup import Rows
from rlhi_dagster.provenance.messages import why_message
from rlhi_dagster.provenance.pairs import why
from rlhi_dagster.provenance.replies import why_reply
from rlhi_dagster.provenance.words import text
from rlhi_dagster.store import erase
from tests.lakes import ANN, EVE, JUDGE, POLICY, REWARD, SHARED, World, assistant, user, world

DOCS = Path(__file__).parents[2] / "docs" / "concepts" / "lineage.md"
REWRITE, SCRATCH = digest_of("rewrite", "ca"), digest_of("scratch", "ca")
RANKED = digest_of("reward", "ca2", "own")
EVALUATED = "dpo_rewrites/user_eval:ce:0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = world(tmp_path_factory.mktemp("lineage") / "data")
    remark = found.chat([user("point at the error")], "Step 2 is wrong.", JUDGE)
    corrected = found.chat([user("correct it")], "1 + 1 = 2", POLICY)
    found.add(
        "reasoning_errors",
        error_id="error-1",
        problem="1 + 1?",
        solution="1 + 1 = 3",
        first_error_step=1,
        feedback="Step 1 is wrong.",
        answer="2",
        simulated_user=JUDGE.identity,
        call_id=remark,
    )
    found.add(
        "reasoning_pairs",
        pair_id="c0ffee",
        error_id="error-1",
        prompt=[user("1 + 1?")],
        chosen="1 + 1 = 2",
        rejected="1 + 1 = 3",
        is_kept=False,
        drop_reasons=["chosen_is_wrong"],
        model=POLICY.identity,
        call_ids=[remark, corrected],
    )
    for order, verdict, probabilities in (("opponent_first", "opponent", (0.2, 0.7, 0.1)), ("recipe_first", None, (None, None, None))):
        found.add(
            "judgements",
            judgement_id=f"chat-{order}",
            recipe="dpo_rewrites",
            opponent="base",
            prompt_id="user_eval:ce:0",
            benchmark="user_eval",
            user_id=EVE,
            judge=JUDGE.identity,
            criterion="overall",
            order=order,
            verdict=verdict,
            error=None if verdict else "prompt_too_long: 9",
            **dict(zip(("recipe_probability", "opponent_probability", "tie_probability"), probabilities, strict=True)),
            is_malformed=False,
            call_id=found.chat([user(f"Which is better, {order}?")], "A" if verdict else None, JUDGE, choices=("A", "B", "C")),
        )
    folder = found.lake.artefact_path("checkpoints", "dpo_rewrites")
    folder.mkdir(parents=True)
    pl.DataFrame({"pair_id": [REWRITE]}).write_parquet(folder / "pairs.parquet")
    folder = found.lake.artefact_path("checkpoints", "sft_rewrites")
    folder.mkdir(parents=True)
    pl.DataFrame({"pair_id": ["another"]}).write_parquet(folder / "pairs.parquet")
    return found.written()


def of(made: World, pair_id: str) -> Lineage:
    return why(made.lake, made.store, pair_id)


def test_a_rewrite_pair_leads_to_messages_label_verdict_and_calls(made: World) -> None:
    found = of(made, REWRITE)
    assert (found.table, found.source, found.strategy, found.split, found.is_kept) == (
        "rewrite_pairs",
        "rewrites",
        "feedback",
        "train",
        True,
    )
    assert [(fate.table, fate.is_kept) for fate in found.fates] == [("rewrite_pairs", True), ("preference_pairs", True)]
    [turn] = found.turns
    assert (turn.turn_id, turn.prompt, turn.reply_id) == ("ca:0", SHARED, "ca:1")
    assert (turn.logged_reply, turn.reply) == ("Logged one a1.", "Regenerated one a1.")
    follow_up = found.follow_up
    assert follow_up is not None
    assert (follow_up.turn_id, follow_up.text, follow_up.span) == ("ca:2", "Shorter, please.", "Shorter, please.")
    assert (follow_up.label, follow_up.probability, follow_up.labeller) == ("reattempt_with_feedback", 0.8, "m@1")
    assert (follow_up.applies, follow_up.applies_probability, follow_up.applies_judge) == (True, 0.9, JUDGE.identity)
    assert (found.chosen.text, found.chosen.reward, found.rejected.reward) == ("Short a1.", 2.0, 1.0)
    uses = {use.recipe: use.is_trained_on_it for use in found.uses}
    assert uses["dpo_rewrites"] is True
    assert uses["sft_rewrites"] is False
    assert "dpo_rewards" not in uses


def test_calls_are_named_by_what_they_did(made: World) -> None:
    found = of(made, REWRITE)
    assert [(call.did, call.model and call.model.partition("@")[0]) for call in found.calls] == [
        ("label of the follow-up", "town-judge"),
        ("span of the feedback", "town-judge"),
        ("reply, regenerated", "town-policy"),
        ("judgement: does the criticism fit the reply", "town-judge"),
        ("rewrite", "town-policy"),
        ("repair of the rewrite", "town-policy"),
        ("judgement: does the rewrite meet the feedback", "town-judge"),
        ("reward", "town-reward"),
        ("reward", "town-reward"),
    ]
    assert all(call.kind and call.answered_at and call.prompt_tokens == 20 for call in found.calls)
    assert found.calls[4].settings is not None
    assert found.calls[4].settings["temperature"] == 0.6


def test_a_ranked_pair_has_its_persona_with_evidence_and_its_candidates(made: World) -> None:
    found = of(made, RANKED)
    assert (found.source, found.strategy, found.condition, found.follow_up) == ("rewards", "best_of_n", "own", None)
    [line] = found.persona
    assert (line.slot, line.line, line.writer) == ("length", "wants short answers (a1)", JUDGE.identity)
    [evidence] = line.evidence
    assert (evidence.turn_id, evidence.text, evidence.quote) == ("ca:2", "Shorter, please.", "Shorter, please.")
    assert (found.chosen.candidate_id, found.rejected.candidate_id) == ("ca2:0#1", "ca2:0#0")
    assert [call.did for call in found.calls] == ["persona line", "sampled reply", "sampled reply", "reward", "reward"]
    assert {call.model for call in found.calls if call.did == "reward"} == {REWARD.identity.replace("/", "-")}


def test_a_pair_of_an_online_round_has_its_round_its_policys_candidates_and_its_recipe(made: World) -> None:
    found = of(made, digest_of("online", "ca2"))
    assert (found.table, found.source, found.strategy, found.condition, found.round) == ("online_pairs", "rewards", "best_of_n", "own", 2)
    assert (found.is_kept, found.split, [use.recipe for use in found.uses]) == (True, "train", ["dpo_rewards_online"])
    assert found.chosen.candidate_id == "dpo_rewards_online/2/ca2:0#1"
    assert [call.did for call in found.calls] == ["persona line", "sampled reply", "sampled reply", "reward", "reward"]
    assert found.calls[1].model == "town-policy-round-1@o1"
    lines = text(found).splitlines()
    assert "  online round 2, with the policy of that round" in lines
    assert "  preference_pairs: not there yet" not in lines
    assert "dpo_rewards_online" not in {use.recipe for use in of(made, RANKED).uses}


def test_dropped_pairs_say_every_reason_and_where(made: World) -> None:
    scratch = of(made, SCRATCH)
    assert scratch.fates[0].drop_reasons == ["refusal", "too_similar"]
    assert (scratch.is_kept, scratch.split, scratch.source) == (False, None, "rewrites_from_scratch")
    duplicate = of(made, digest_of("rewrite", "cb"))
    assert [fate.is_kept for fate in duplicate.fates] == [True, False]
    assert duplicate.duplicate_of == REWRITE
    assert f"  {REWRITE} stays in its place" in text(duplicate).splitlines()


def test_a_corrected_solution(made: World) -> None:
    found = of(made, "c0")
    assert (found.source, found.strategy, found.user_id, found.turns) == ("reasoning", "corrected", None, [])
    assert [call.did for call in found.calls] == ["remark of the simulated user", "corrected solution"]
    shown = text(found)
    for words in ("dropped: chosen_is_wrong", "first wrong step 1, known answer 2", "Step 1 is wrong."):
        assert words in shown


def test_text_fits_a_terminal_and_is_whole_if_wanted(made: World) -> None:
    long = {"rewrite": "word " * 400}
    found = of(made, REWRITE)
    stretched = Lineage(**{**_shallow(found), "chosen": type(found.chosen)(long["rewrite"], 2.0, None)})
    short, full = text(stretched), text(stretched, is_full=True)
    assert max(map(len, short.splitlines())) <= 120
    assert short.count("word") < 70
    assert "characters ..." in short
    assert full.count("word") == 400
    for words in (REWRITE, ANN, "ca:0 user, 2023-04-03 12:00:00", "Regenerated one a1.", "dpo_rewrites (its checkpoint was trained on it)"):
        assert words in short


def _shallow(found: Lineage) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


def test_an_answer_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    made = world(tmp_path)
    before = of(made, REWRITE)
    erase.remove(made.store, {call.call_id for call in before.calls[4:6]})
    after = of(made, REWRITE)
    assert [call.call_id for call in after.calls] == [call.call_id for call in before.calls]
    assert [call.kind for call in after.calls[4:6]] == [None, None]
    assert {call.did for call in after.calls[4:6]} == {"rewrite, repair, judgement or reward"}
    assert text(after).count("not in the store any more") == 2


def test_a_pair_of_what_was_said_outright_shows_it_all(tmp_path: Path) -> None:
    made = World(tmp_path)
    ids = {"turn_id": "x:0", "user_id": ANN, "month": "2023-04"}
    sides = {"prompt": [user("Hi")], "chosen": "Hello.", "rejected": "Yo.", "is_kept": True, "drop_reasons": [], "persona_line_ids": []}
    made.add("explicit_pairs", pair_id="abc", feedback_id="f2", kind="regeneration", evidence="strong", **ids, **sides, model="logged")
    for number, (kind, value, said) in enumerate([("thumb", 1.0, None), ("regeneration", None, "Yo.")]):
        given = {"kind": kind, "value": value, "text": said, "giver": "end_user", "given_at": datetime(2023, 4, 3 - number, tzinfo=UTC)}
        made.add("explicit_feedback", feedback_id=f"f{number + 1}", conversation_id="x", reply_id="x:1", **ids, **given)
    made.written()
    found = of(made, "abc")
    assert (found.table, found.source, found.strategy, found.evidence) == ("explicit_pairs", "siblings", "regeneration", "strong")
    assert [(each.feedback_id, each.kind, each.value, each.text) for each in found.outright] == [
        ("f2", "regeneration", None, "Yo."),
        ("f1", "thumb", 1.0, None),
    ]
    assert found.calls == []
    shown = text(found)
    assert "said of the logged reply outright (strong evidence)\n  regeneration by end_user, 2023-04-02 00:00:00:\n    Yo.\n" in shown
    assert "  thumb +1 by end_user, 2023-04-03 00:00:00\n" in shown


def test_tables_that_are_not_there_leave_gaps_and_no_error(tmp_path: Path) -> None:
    made = World(tmp_path)
    ids = {"pair_id": "abc", "turn_id": "x:0", "user_id": ANN, "month": "2023-04", "follow_up_id": "x:2", "strategy": "logged"}
    sides = {"prompt": [user("Hi"), assistant("Hello"), user("More")], "chosen": "a", "rejected": "b", "is_kept": True, "drop_reasons": []}
    made.add("rewrite_pairs", **ids, **sides, persona_line_ids=["gone"], model="m", call_ids=["0" * 32])
    made.written()
    found = of(made, "abc")
    assert (found.turns, found.follow_up, found.split) == ([], None, None)
    shown = text(found)
    for words in ("preference_pairs: not there yet", "gone: not in the table any more", "Hello", "not in the store any more"):
        assert words in shown


@pytest.mark.parametrize(("wanted", "message"), [("", "give a pair_id"), ("zz", "no pairs begin with zz in"), ("", "give")])
def test_a_pair_that_is_not_there(made: World, wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of(made, wanted)


def test_a_beginning_of_several_pairs_lists_them(tmp_path: Path) -> None:
    made = World(tmp_path)
    for pair_id in ("aa1", "aa2", "aa1x"):
        made.add(
            "rewrite_pairs", pair_id=pair_id, month="2023-04", strategy="feedback", is_kept=True, drop_reasons=[], call_ids=[], prompt=[]
        )
    made.written()
    with pytest.raises(ValueError, match="3 pairs begin with aa: aa1, aa1x, aa2"):
        of(made, "aa")
    assert of(made, "aa1").pair_id == "aa1", "a whole id is no beginning of another"


def test_the_command_prints_text_or_json(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_DATA", str(made.root))
    monkeypatch.setenv("RLHI_PROFILE", "sample")
    monkeypatch.delenv("RLHI_SOURCE", raising=False)

    def run(*arguments: str) -> str:
        parser = argparse.ArgumentParser()
        why_command.add_parser(parser.add_subparsers())
        return why_command.run(parser.parse_args(["why", *arguments]))

    assert run(REWRITE[:8]).startswith(f"pair {REWRITE}\n")
    told = json.loads(run(REWRITE, "--json"))
    assert told.keys() == asdict(of(made, REWRITE)).keys()
    assert told["follow_up"]["asked_at"] == "2023-04-03T12:01:00+00:00"
    assert run(EVALUATED[:14]).startswith(f"evaluated reply {EVALUATED}\n")
    assert run("ca:2").startswith("message ca:2\n  user a1")
    assert json.loads(run("ca:2", "--json"))["topic"] == "mint"
    with pytest.raises(ValueError, match="2 messages begin with ca:"):
        run("ca:")
    assert json.loads(run(EVALUATED, "--json"))["judgements"][1]["opponent_probability"] == 0.7


# Messages


def test_a_complaint_leads_to_the_messages_around_it_its_groups_and_lines(made: World) -> None:
    found = why_message(made.lake, made.store, "ca:2")
    assert (found.user_id, found.wish, found.topic, found.is_resolved, found.turns) == (ANN, "short answers", "mint", None, 2)
    assert [(said.turn_id, said.prompt, said.reply, said.label, said.probability) for said in found.messages] == [
        ("ca:0", SHARED, "Logged one a1.", None, None),
        ("ca:2", "Shorter, please.", "Logged two a1.", "reattempt_with_feedback", 0.8),
    ]
    assert [(line.persona_line_id, line.evidence[0].quote) for line in found.persona] == [("line-a1", "Shorter, please.")]
    assert [call.did for call in found.calls] == [
        "label of the follow-up",
        "span of the feedback",
        "name of the group of complaints",
        "persona line",
    ]
    shown = text(found)
    for words in (
        "complaint: short answers, on mint; nothing follows",
        "conversation (2 of 2 messages of the user)",
        "> ca:2 user, turn 2, 2023-04-03 12:01:00",
        'reattempt_with_feedback with probability 0.80, by m@1, in the words "Shorter, please."',
        "wants short answers (a1)",
    ):
        assert words in shown


def test_a_message_that_is_no_complaint(made: World) -> None:
    found = why_message(made.lake, made.store, "ce:0")
    assert (found.wish, found.persona, found.calls, len(found.messages)) == (None, [], [], 1)
    assert "complaint" not in text(found)
    assert "persona lines that rest on it: none" in text(found)


def test_of_a_long_conversation_the_opening_and_what_is_near_is_shown(tmp_path: Path) -> None:
    made = World(tmp_path)
    for n in range(9):
        shared = {"turn_id": f"a/b: c:{2 * n}", "conversation_id": "a/b: c", "user_id": ANN, "month": "2023-04", "turn": n + 1}
        made.add("turns", **shared, prompt=f"message {n}", reply="ok" if n < 8 else None)
    made.written()
    found = why_message(made.lake, made.store, "a/b: c:10")
    assert [said.turn for said in found.messages] == [1, 4, 5, 6, 7, 8]
    assert "6 of 9 messages" in text(found)
    assert "no reply:" in text(why_message(made.lake, made.store, "a/b: c:16"))
    with pytest.raises(ValueError, match="no messages begin with zz"):
        why_message(made.lake, made.store, "zz")
    with pytest.raises(ValueError, match="9 messages begin with a/b:: a/b: c:0, a/b: c:10, "):
        why_message(made.lake, made.store, "a/b:")


# Evaluation


def test_an_evaluated_reply_leads_to_its_item_its_verdicts_and_all_their_calls(made: World) -> None:
    found = why_reply(made.lake, made.store, EVALUATED)
    assert (found.recipe, found.benchmark, found.prompt_id, found.user_id) == ("dpo_rewrites", "user_eval", "user_eval:ce:0", EVE)
    assert (found.prompt, found.reply, found.opponents) == ([user("Bake a cake.")], "dpo_rewrites says", {"base": "base says"})
    assert [(each.judge, each.order, each.verdict, each.error) for each in found.judgements] == [
        ("town", "recipe_first", "tie", None),
        (JUDGE.identity, "opponent_first", "opponent", None),
        (JUDGE.identity, "recipe_first", None, "prompt_too_long: 9"),
    ]
    assert [(call.did, call.model) for call in found.calls] == [
        ("reply to the evaluation item", "town-dpo_rewrites@c1"),
        ("reply that it was compared with", "town-base@c1"),
        ("judgement: which reply serves the user better", "town-judge@j1"),
        ("judgement: which reply serves the user better", "town-judge@j1"),
    ]
    assert found.calls[2].settings is not None
    assert found.calls[2].settings["choices"] == ["A", "B", "C"]
    shown = text(found)
    for words in (
        "against base, opponent_first, overall, by town/judge@j1: opponent, probability of recipe 0.20",
        "by town/judge@j1: no verdict (prompt_too_long: 9), malformed: no",
        "Bake a cake.",
        "persona shown: none",
        "reply of base:",
        "model calls (4)",
    ):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_the_base_is_compared_with_itself_and_a_problem_has_no_user(made: World) -> None:
    base = why_reply(made.lake, made.store, "base/user_eval:ce:0")
    assert [call.did for call in base.calls] == ["reply to the evaluation item"], "its own call is named once"
    problem = why_reply(made.lake, made.store, "base/arith")
    assert (problem.user_id, problem.reference, problem.judgements) == (None, "2", [])
    assert "  known answer 2" in text(problem).splitlines()


def test_a_call_leads_back_to_the_rows_that_name_it(made: World) -> None:
    calls, rows = why_reply(made.lake, made.store, EVALUATED).calls, Rows(made.lake)
    assert [rows.naming(call.call_id) for call in calls] == [
        {"responses": [EVALUATED]},
        {"responses": ["base/user_eval:ce:0"]},
        {"judgements": ["dpo_rewrites base user_eval:ce:0 opponent_first"]},
        {"judgements": ["dpo_rewrites base user_eval:ce:0 recipe_first"]},
    ]
    sampled = next(call.call_id for call in of(made, RANKED).calls if call.did == "sampled reply")
    pairs = sorted(digest_of("reward", "ca2", condition) for condition in ("own", "shuffled"))
    [candidate] = {"ca2:0#0", "ca2:0#1"} & set(rows.naming(sampled)["candidates"])
    assert rows.naming(sampled) == {"reward_pairs": pairs, "candidates": [candidate], "preference_pairs": pairs}
    assert rows.naming("0" * 32) == {}


@pytest.mark.parametrize(
    ("wanted", "message"), [("/nothing", "no evaluated replies begin with /nothing in"), ("base/", "2 evaluated replies begin with base/")]
)
def test_an_evaluated_reply_that_is_not_there_or_not_alone(made: World, wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        why_reply(made.lake, made.store, wanted)


# SQL


def queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def answered(made: World, query: str) -> list[dict[str, Any]]:
    with made.lake.connect() as connection:
        found = connection.execute(query)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_documented_join_finds_the_same(made: World) -> None:
    rows = answered(made, queries()[0])
    assert sorted(row["pair_id"] for row in rows) == sorted(made.lake.scan("preference_pairs").collect()["pair_id"])
    for row in rows:
        found = of(made, row["pair_id"])
        assert row["request"] == found.turns[-1].prompt
        assert row["regenerated_reply"] == (found.follow_up and found.turns[-1].reply)
        assert row["follow_up"] == (found.follow_up and found.follow_up.text)
        assert row["lines"] == ([line.line for line in found.persona] or None)
        assert {key for key in row["call_ids"] if key} == {call.call_id for call in found.calls}


def test_the_documented_query_of_calls_reads_the_store(made: World) -> None:
    keys = {row["key"] for row in answered(made, queries()[1].replace("data/responses", str(made.store)))}
    assert {call.call_id for call in of(made, REWRITE).calls if call.kind == "chat"} <= keys
