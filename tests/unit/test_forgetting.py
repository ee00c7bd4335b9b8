"""Forgetting: what names the user goes, what is only theirs goes from the store, everything else stays as it was."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from assets import training
from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import FOLLOW_UP_EXAMPLES, TABLES, THUMB_EXAMPLES
from rlhi_dagster.cli import forget_command, main
from rlhi_dagster.conversations.turns import timed
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.models import MANIFEST, MARK, digest_of, weights_digest
from rlhi_dagster.evaluation import Criterion
from rlhi_dagster.evaluation.judges import ChatJudge, judge_pairs
from rlhi_dagster.feedback.labels.chat_labeller import ChatLabeller
from rlhi_dagster.feedback.labels.follow_ups import follow_ups
from rlhi_dagster.forgetting import marks, tombstones, traces
from rlhi_dagster.forgetting.footprint import footprint, tables
from rlhi_dagster.forgetting.forget import Outputs, forget, look
from rlhi_dagster.graph import declare
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.personas.chat_writer import ChatWriter
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.personas.settings import PersonaSettings
from rlhi_dagster.store import erase
from rlhi_dagster.store.compaction import folders
from rlhi_dagster.store.integrity import verify
from rlhi_dagster.store.responses import ResponseStore
from tests.built import built
from tests.lakes import ANN, BOB, ENGINE, EVE, JUDGE, POLICY, SAMPLING, SHARED, START, World, persona_of, user, world

PROFILE = profiles.load("sample")


@pytest.fixture
def made(tmp_path: Path) -> World:
    return world(tmp_path / "data")


def frames(lake: Lake) -> dict[str, pl.DataFrame]:
    return {name: frame.collect() for name, frame in tables(lake)}


def stored(made: World) -> set[str]:
    files = [file for _, folder in folders(made.store) for file in folder.glob("*.parquet")]
    return set(pl.concat(pl.read_parquet(file, columns=["key"]) for file in files)["key"]) if files else set()


def keys_of(frame: pl.DataFrame) -> set[str]:
    found: set[str] = set()
    for name, dtype in frame.schema.items():
        if name.endswith(("call_id", "call_ids")):
            column = frame[name].explode(empty_as_null=True) if isinstance(dtype, pl.List) else frame[name]
            found |= set(column.drop_nulls())
    return found


@pytest.mark.parametrize("who", [ANN, BOB, EVE])
def test_no_row_names_the_user_and_every_other_row_stays(made: World, who: str) -> None:
    before, found = frames(made.lake), footprint(made.lake, who)
    forget(Outputs(made.root), who)
    after = frames(made.lake)
    theirs = {who, *(value for values in found.ids.values() for value in values)}
    assert {"a1" * 16: "ca:0", "b2" * 16: "cb:0", "e3" * 16: "ce:0"}[who] in theirs
    for name, rows in after.items():
        assert rows.schema == TABLES[name].schema
        text = rows.write_json()
        assert not [value for value in theirs if json.dumps(value) in text], name
        left = before[name].filter(
            ~pl.Series([any(json.dumps(v) in row for v in theirs) for row in _lines(before[name])], dtype=pl.Boolean)
        )
        gone = before[name].join(rows, on=list(TABLES[name].unique), how="anti")
        extra = gone.join(left, on=list(TABLES[name].unique), how="semi")
        # What goes beside rows that name the user is what was ranked under the user's persona.
        assert set(extra.columns) >= {"pair_id"} or extra.is_empty(), name
        if not extra.is_empty():
            assert set(extra["pair_id"]) == {digest_of("reward", {ANN: "cb2", BOB: "ca2"}[who], "shuffled")}
        assert rows.equals(before[name].join(rows, on=list(TABLES[name].unique), how="semi", maintain_order="left")), name


def _lines(frame: pl.DataFrame) -> list[str]:
    return [json.dumps(row, default=str) for row in frame.to_dicts()]


@pytest.mark.parametrize("who", [ANN, BOB, EVE])
def test_no_answer_is_left_that_only_the_user_used(made: World, who: str) -> None:
    before, keys = frames(made.lake), stored(made)
    found = forget(Outputs(made.root), who)
    after, left = frames(made.lake), stored(made)
    assert keys - left == found.keys & keys
    assert left == keys - found.keys
    named_before, named_after = (set().union(*map(keys_of, each.values())) for each in (before, after))
    assert not (named_before - named_after) & left, "only rows that are gone used them"
    assert named_after <= left, "an answer of somebody else went"
    assert all(not verify(kind, folder) for kind, folder in folders(made.store))
    for file in (made.store / "references").rglob("*.parquet"):
        assert set(pl.read_parquet(file)["key"]) <= left


def test_a_text_that_others_wrote_too_keeps_its_vector(made: World) -> None:
    vector = {text: made.vector(text) for text in (SHARED, "Shorter, please.", "Which tulips are early?", "continue", "Logged one a1.")}
    forget(Outputs(made.root), ANN)
    left = stored(made)
    assert {text for text, key in vector.items() if key in left} == {SHARED, "continue"}


def test_answers_of_earlier_settings_and_models_are_known_by_the_message(made: World) -> None:
    stale = made.chat([user("Which tulips are early?")], "Old.", note=False)
    mine = made.chat([user(SHARED), {"role": "assistant", "content": "x"}, user("Shorter, please.")], "Old.", note=False)
    scored = made.reward([user("Which tulips are early?"), {"role": "assistant", "content": "Old."}], 0.5, note=False)
    somebody = made.chat([user(SHARED)], "Bob's as much as Ann's.", sample_index=9, note=False)
    forget(Outputs(made.root), ANN)
    assert stored(made) & {stale, mine, scored, somebody} == {somebody}


def test_responses_of_a_held_out_user_go_with_their_calls(made: World) -> None:
    keys = stored(made)
    forget(Outputs(made.root), EVE)
    gone = keys - stored(made)
    assert len(gone) == 2
    assert frames(made.lake)["responses"]["prompt_id"].unique().to_list() == ["arithmetic:1"]


@dataclass
class Asked:
    """A model that gives every question the same answer and keeps it; rows need name none of them."""

    made: World
    text: str | None
    keys: list[str] = field(default_factory=list)

    def __call__(self, requests: list[ChatRequest]) -> list[ChatAnswer]:
        self.keys += [self.made.chat(each.messages, self.text, JUDGE, False, choices=each.choices) for each in requests]
        return [ChatAnswer(self.text, None if self.text else "prompt_too_long: 9", "stop", 1, 1)] * len(requests)


def test_questions_of_which_no_row_came_are_found_by_asking_the_store_again(made: World) -> None:
    turns, settings = made.lake.scan("turns"), PersonaSettings(conversations_per_update=1)
    failed, silent = Asked(made, None), Asked(made, json.dumps({"withdrawn": [], "revised": [], "new": []}))
    for who in (ANN, BOB):
        ChatLabeller.with_default_prompts("m", failed).label(follow_ups(turns.filter(pl.col("user_id") == who)))
        ChatWriter.with_default_prompt("m", silent, settings).persona_lines(turns.filter(pl.col("user_id") == who))
    assert (len(failed.keys), len(silent.keys)) == (2, 4)
    forget(Outputs(made.root, writer=settings), ANN)
    assert stored(made) & {*failed.keys, *silent.keys} == {failed.keys[1], *silent.keys[2:]}


def test_a_last_word_goes_with_all_that_was_asked_about_it(made: World) -> None:
    text, shared = "It still wilts.", {"conversation_id": "ca", "user_id": ANN, "month": "2023-04"}
    (talk,) = (row for row in made.rows["conversations"] if row["conversation_id"] == "ca")
    talk["messages"].append({"message_id": "ca:4", "message_index": 4, "role": "user", "content": text, "sent_at": None})
    talk["has_last_word"] = True
    (criticised,) = (row for row in made.rows["wildllamachat"] if row["turn_id"] == "ca:2")
    criticised |= {"follow_up_id": "ca:4", "follow_up": text}
    made.add("turns", **shared, turn_id="ca:4", turn=3, asked_at=START + timedelta(minutes=2), prompt=text)
    made.add("feedback_labels", **shared, turn_id="ca:4", turn=3, is_unanswered=True, label="other", call_ids=[])
    vector = made.vector(text)
    made.written()
    failed, silent = Asked(made, None), Asked(made, json.dumps({"withdrawn": [], "revised": [], "new": []}))
    turns = made.lake.scan("turns").filter(pl.col("user_id") == ANN)
    ChatLabeller.with_default_prompts("m", failed).label(follow_ups(turns))
    ChatWriter.with_default_prompt("m", silent, settings := PersonaSettings()).persona_lines(timed(turns, made.lake.scan("conversations")))
    assert (len(failed.keys), len(silent.keys)) == (2, 1)
    forget(Outputs(made.root, writer=settings), ANN)
    assert not stored(made) & {vector, *failed.keys, *silent.keys}
    assert not [name for name, rows in frames(made.lake).items() if text in rows.write_json()]


def test_what_a_judge_was_asked_about_a_held_out_user_goes(made: World) -> None:
    judge, items = Asked(made, "A"), made.lake.scan("eval_prompts").filter(pl.col("user_id") == EVE).collect()
    responses = made.lake.scan("responses").collect().with_columns(reply=pl.format("{} {}", "recipe", "reply"))
    made.lake.write("responses", responses, ["base", "dpo_rewrites"])
    of = {recipe: responses.filter(pl.col("recipe") == recipe) for recipe in ("base", "dpo_rewrites")}
    judge_pairs(items, of["dpo_rewrites"], of["base"], ChatJudge.with_default_prompts("m", judge))
    assert len(judge.keys) == 2 * len(Criterion), "each question in each order"
    forget(Outputs(made.root), EVE)
    assert not stored(made) & set(judge.keys)


def test_rewards_under_a_persona_that_only_the_user_has_go(made: World) -> None:
    dialogue = [user("Of somebody else."), {"role": "assistant", "content": "Reply."}]
    mine, others = (made.reward(with_persona(dialogue, persona_of(who)), 1.0, note=False) for who in (ANN, BOB))
    forget(Outputs(made.root), ANN)
    assert stored(made) & {mine, others} == {others}


def test_looking_removes_nothing_and_says_what_would_go(made: World) -> None:
    before, keys = frames(made.lake), stored(made)
    found = look(Outputs(made.root), ANN)
    assert found.rows["turns"] == (3, 0)
    assert found.rows["users"] == (2, 1), "Bob's split was told by Ann's id"
    assert found.rows["candidate_rewards"] == (6, 2), "two rewards of Bob's replies under Ann's persona"
    assert found.rows["preference_pairs"] == (5, 2), "Bob's shuffled pair, and the one that was taken for a duplicate of Ann's"
    assert found.rows["quarantine"] == (1, 0)
    assert sum(found.answers.values()) == len(found.keys & keys)
    assert stored(made) == keys
    assert all(rows.equals(before[name]) for name, rows in frames(made.lake).items())
    assert tombstones.read(made.root) == {}


def test_forgetting_twice_and_forgetting_nobody(made: World) -> None:
    first = forget(Outputs(made.root), ANN)
    moment, rows, keys = tombstones.read(made.root)[ANN], frames(made.lake), stored(made)
    again = forget(Outputs(made.root), ANN)
    assert not first.is_nothing
    assert again.is_nothing
    assert tombstones.read(made.root) == {ANN: moment}
    forget(Outputs(made.root), "f" * 32)
    assert set(tombstones.read(made.root)) == {ANN, "f" * 32}
    assert stored(made) == keys
    assert all(frame.equals(rows[name]) for name, frame in frames(made.lake).items())


@pytest.mark.parametrize("survivors", range(0, 17, 4))
def test_killed_in_the_middle_the_next_one_does_the_rest(made: World, monkeypatch: pytest.MonkeyPatch, survivors: int) -> None:
    done = []
    drop = Lake.drop_rows

    def until(self: Lake, name: str, goes: pl.Expr) -> int:
        if len(done) == survivors:
            raise KeyboardInterrupt
        done.append(name)
        return drop(self, name, goes)

    undisturbed = world(made.root.with_name("undisturbed"))
    forget(Outputs(undisturbed.root), ANN)
    monkeypatch.setattr(Lake, "drop_rows", until)
    with pytest.raises(KeyboardInterrupt):
        forget(Outputs(made.root), ANN)
    monkeypatch.setattr(Lake, "drop_rows", drop)
    forget(Outputs(made.root), ANN)
    expected = frames(undisturbed.lake)
    assert all(frame.equals(expected[name]) for name, frame in frames(made.lake).items())
    assert stored(made) == stored(undisturbed)


def test_job_files_leftovers_and_the_report_go(made: World) -> None:
    paths = [
        "work/rewrites/1.parquet",
        "lake/turns/.2023-04.parquet.ab.partial",
        "lake/checkpoints/.sft.training/model.bin",
        "responses/chat/m@r1/segment-1.partial",
        "lake/report/index.html",
    ]
    for path in paths:
        file = made.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("Which tulips are early?")
    assert look(Outputs(made.root), ANN).files == 4
    forget(Outputs(made.root), ANN)
    assert not [path for path in paths if (made.root / path).exists()]


# Marks


def artefact(lake: Lake, path: str, method: str, pair_ids: list[str] | None) -> Path:
    folder = Path(lake.root, path)
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(json.dumps({"method": method, "model": {}}))
    (folder / "model.safetensors").write_bytes(b"weights")
    if pair_ids is not None:
        pl.DataFrame({"pair_id": pair_ids}).write_parquet(folder / "pairs.parquet")
    return folder


def test_what_was_trained_on_the_users_pairs_is_marked(made: World) -> None:
    mine, bobs = digest_of("rewrite", "ca"), digest_of("rewrite", "cb")
    borrowed = digest_of("reward", "cb2", "shuffled")
    trained = artefact(made.lake, "checkpoints/dpo_rewrites", "dpo", [mine, bobs, "x"])
    artefact(made.lake, "checkpoints/dpo_rewards", "dpo", [bobs])
    artefact(made.lake, "checkpoints/dpo_rewards_shuffled_persona", "dpo", [borrowed])
    artefact(made.lake, "checkpoints/base", "none", None)
    artefact(made.lake, "checkpoints/sft_rewrites", "sft", None)
    artefact(made.lake, "reward_model", "reward", [mine])
    made.lake.artefact_path("feedback_classifier").mkdir()
    digest = weights_digest(trained)
    found = forget(Outputs(made.root, labelled := frozenset({"ca", "cb"})), ANN)
    marked = ["checkpoints/dpo_rewards_shuffled_persona", "checkpoints/dpo_rewrites", "checkpoints/sft_rewrites", "reward_model"]
    assert sorted(found.artefacts) == [*marked[:3], "feedback_classifier", marked[3]]
    told = {each.artefact: (each.gone, each.of) for each in marks.marks(made.lake)}
    assert told == {
        "checkpoints/dpo_rewards_shuffled_persona": (1, 1),
        "checkpoints/dpo_rewrites": (1, 3),
        "checkpoints/sft_rewrites": (None, None),
        "reward_model": (1, 1),
        "feedback_classifier": (1, 2),
    }
    assert pl.read_parquet(trained / "pairs.parquet")["pair_id"].to_list() == [bobs, "x"], "the list names the user's pairs no more"
    assert weights_digest(trained) == digest, "the model is the same"
    forget(Outputs(made.root, labelled), BOB)
    told = {each.artefact: each.gone for each in marks.marks(made.lake)}
    assert (told["checkpoints/dpo_rewrites"], told["checkpoints/dpo_rewards"], told["feedback_classifier"]) == (2, 1, 2)
    marks.clear(trained)
    assert "checkpoints/dpo_rewrites" not in [each.artefact for each in marks.marks(made.lake)]
    assert not (trained / MARK).exists()


def test_thumbs_go_and_what_was_trained_on_them_is_marked(made: World) -> None:
    rows = [
        dict.fromkeys(THUMB_EXAMPLES.columns)
        | {"pair_id": f"{source}-{owner}", "source": source, "split": "train", "is_kept": True, "drop_reasons": [], "user_id": owner}
        | {"prompt": [user("Which tulips are early?")], "chosen": "Some.", "persona": "", "persona_line_ids": []}
        for owner in (ANN, BOB)
        for source in ("thumbs", "thumbs_shuffled")
    ]
    made.lake.write("thumb_examples", pl.DataFrame(rows, schema=THUMB_EXAMPLES.schema))
    artefact(made.lake, "checkpoints/kto_thumbs", "kto", [f"thumbs-{ANN}", f"thumbs-{BOB}"])
    assert forget(Outputs(made.root), ANN).artefacts == ["checkpoints/kto_thumbs"]
    assert set(made.lake.scan("thumb_examples").collect()["user_id"]) == {BOB}
    assert [(each.artefact, each.gone, each.of) for each in marks.marks(made.lake)] == [("checkpoints/kto_thumbs", 1, 2)]


def test_words_that_were_dealt_to_another_users_reply_go_and_the_replies_own_user_takes_nothing_of_theirs(made: World) -> None:
    turns = {owner: made.lake.scan("turns").filter(user_id=owner).collect()["turn_id"].to_list() for owner in (ANN, BOB)}
    rows = [
        dict.fromkeys(FOLLOW_UP_EXAMPLES.columns)
        | {"pair_id": f"{source}-{owner}", "source": source, "split": "train", "is_kept": True, "drop_reasons": [], "user_id": owner}
        | {"prompt": [user("Which tulips are early?")], "reply": "Some.", "follow_up": "Shorter.", "persona": "", "persona_line_ids": []}
        | {"turn_id": turns[owner][0], "follow_up_turn_id": turns[giver][-1]}
        for owner, other in ((ANN, BOB), (BOB, ANN))
        for source, giver in (("follow_ups", owner), ("follow_ups_shuffled", other))
    ]
    made.lake.write("follow_up_examples", pl.DataFrame(rows, schema=FOLLOW_UP_EXAMPLES.schema))
    artefact(made.lake, "checkpoints/sdpo_follow_ups_shuffled", "sdpo", [f"follow_ups_shuffled-{owner}" for owner in (ANN, BOB)])
    assert forget(Outputs(made.root), ANN).artefacts == ["checkpoints/sdpo_follow_ups_shuffled"]
    assert made.lake.scan("follow_up_examples").collect()["pair_id"].to_list() == [f"follow_ups-{BOB}"]
    assert made.lake.scan("turns").filter(user_id=BOB).collect()["turn_id"].to_list() == turns[BOB]
    assert [(each.artefact, each.gone, each.of) for each in marks.marks(made.lake)] == [("checkpoints/sdpo_follow_ups_shuffled", 2, 2)]


def test_the_policies_between_online_rounds_are_marked(made: World) -> None:
    mine = digest_of("online", "ca2")
    artefact(made.lake, "online_policies/dpo_rewards_online-round-1", "dpo", [mine, "x"])
    artefact(made.lake, "online_policies/dpo_rewards_online-round-2", "dpo", ["x"])
    assert forget(Outputs(made.root), ANN).artefacts == ["online_policies/dpo_rewards_online-round-1"]
    assert [(each.artefact, each.gone, each.of) for each in marks.marks(made.lake)] == [
        ("online_policies/dpo_rewards_online-round-1", 1, 2)
    ]


@pytest.mark.parametrize(("marked", "passed"), [(None, True), ("checkpoints/other", False), ("reward_model", True)])
def test_the_check_warns_while_a_checkpoint_of_any_recipe_has_a_mark(tmp_path: Path, marked: str | None, passed: bool) -> None:
    lake = Lake(root=str(tmp_path))

    @dg.asset(partitions_def=declare.Place(PROFILE).recipes, backfill_policy=dg.BackfillPolicy.single_run())
    def checkpoints() -> None: ...

    if marked:
        artefact(lake, marked, "dpo", ["p", "q"])
        marks.mark_trained(lake, {"p"}, datetime(2026, 1, 1, tzinfo=UTC))
    (declared,) = [each for each in training.forgotten if each.asset == "checkpoints"]
    resources = {"lake": lake, "settings": Settings(PROFILE)}
    outcome = dg.materialize([checkpoints, *built(PROFILE, declared)], partition_key="base", resources=resources)
    (evaluation,) = outcome.get_asset_check_evaluations()
    assert evaluation.passed is passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert passed or evaluation.metadata[f"pairs_gone/{marked}"].value == 1


# The command


@pytest.fixture
def terminal(made: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("RLHI_DATA", str(made.root))
    monkeypatch.delenv("RLHI_SOURCE", raising=False)
    monkeypatch.setenv("RLHI_PROFILE", "sample")

    def run(*arguments: str) -> str:
        parser = argparse.ArgumentParser()
        forget_command.add_parser(parser.add_subparsers())
        return forget_command.run(parser.parse_args(["forget", *arguments]))

    return run


def test_the_command_shows_first_and_forgets_with_yes(made: World, terminal: Callable[..., str]) -> None:
    shown = terminal(ANN[:3])
    assert f"user {ANN}" in shown
    assert "nothing is removed without --yes" in shown
    assert re.search(r"candidate_rewards +6 rows +\(2 of other users", shown)
    assert re.search(r"embedding \S+ +3 answers", shown)
    artefact(made.lake, "checkpoints/dpo_rewrites", "dpo", [digest_of("rewrite", "ca")])
    done = terminal(ANN, "--yes")
    assert "checkpoints/dpo_rewrites: trained before" in done
    assert "1 of 1 are of forgotten users: train it again" in done
    assert "nothing of this user is in the outputs" in terminal(ANN[:3]), "a tombstone is known by its beginning"
    for text in (shown, done):
        assert not [said for said in (SHARED, "tulips", "Shorter") if said in text]
    assert "of forgotten users: train it again" in main.summary()


def test_the_command_takes_no_guess_for_a_user(made: World, terminal: Callable[..., str]) -> None:
    made.add("users", user_id="a17" + "0" * 29, conversations=1, split="train")
    made.written()
    with pytest.raises(ValueError, match="2 users begin with a1"):
        terminal("a1")
    with pytest.raises(ValueError, match=r"no user .* begins with c"):
        terminal("c")
    with pytest.raises(ValueError, match="give a user"):
        terminal("")
    assert "nothing of this user" in terminal("c" * 32)


# Tombstones


def test_a_file_that_is_no_list_of_tombstones_stops_everything(tmp_path: Path) -> None:
    moment = tombstones.add(tmp_path, ANN)
    assert tombstones.add(tmp_path, ANN) == moment
    with (tmp_path / tombstones.FILE).open("a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match="line 2, is no tombstone"):
        tombstones.read(tmp_path)
    with pytest.raises(ValueError, match="line 2"):
        tombstones.add(tmp_path, BOB)


def test_several_processes_set_tombstones_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from rlhi_dagster.forgetting import tombstones as t\n"
    code += "for n in range(20): t.add(Path(sys.argv[1]), f'{sys.argv[2]}-{n}')"
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)]) for number in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert set(tombstones.read(tmp_path)) == {f"{number}-{n}" for number in range(3) for n in range(20)}
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".partial")] == []


def test_removing_from_a_store_takes_errors_too_and_leaves_the_rest(made: World) -> None:
    request = ChatRequest([user("busy")])
    key = request.key(POLICY, SAMPLING, ENGINE)
    store = ResponseStore(made.store, "chat", POLICY.identity)
    store.append(
        pl.DataFrame([{"key": key, "error": "timeout: 3 s", "is_retryable": True}]).select(
            (pl.col(n) if n in {"key", "error", "is_retryable"} else pl.lit(None)).cast(t).alias(n) for n, t in store.schema.items()
        )
    )
    keys = stored(made)
    assert erase.count(made.store, {key}) == {("chat", store.folder.name): 1}
    assert [each.rows for each in erase.remove(made.store, {key, "0" * 32})] == [1]
    assert stored(made) == keys - {key}
    assert store.missing(pl.Series([key])).to_list() == [key]
    assert erase.remove(made.store, set()) == []


def test_messages_are_known_as_requests_hold_them_and_as_training_rows_do() -> None:
    said = [{"role": "user", "content": "a<|im_end|>"}]
    assert traces._spellings(said) == [said, [{"role": "user", "content": "a< |im_end|>"}]]
    assert traces._spellings([{"role": "user", "content": "a"}]) == [[{"role": "user", "content": "a"}]]
