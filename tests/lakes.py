"""A made-up lake with its response store: three users, one of whom is held out, and everything that a pair can rest on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest, Sampling, trace
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.engines.models import ModelRef, digest_of
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.store import uses
from rlhi_dagster.store.responses import ResponseStore

ANN, BOB, EVE = "a1" * 16, "b2" * 16, "e3" * 16
POLICY, REWARD, JUDGE = ModelRef("town/policy", "p1"), ModelRef("town/reward", "r1"), ModelRef("town/judge", "j1")
SAMPLING, ENGINE = Sampling(0.6, 0.9, 48, 7), "echo"
START = datetime(2023, 4, 3, 12, tzinfo=UTC)
MONTHS = ["2023-04", "2023-05"]
SHARED = "How do I grow mint?"
"""Ann and Bob open with it word for word."""


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@dataclass
class World:
    """Rows by table, in the making, and the answers behind them."""

    root: Path
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    used: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(root=str(self.root / "lake"))

    @property
    def store(self) -> Path:
        return self.root / "responses"

    def add(self, table: str, **values: Any) -> dict[str, Any]:
        self.rows.setdefault(table, []).append(values)
        return values

    def chat(self, messages: list[dict[str, str]], text: str | None, model: ModelRef = POLICY, note: bool = True, **asked: Any) -> str:
        """Keep an answer; its key."""
        request = ChatRequest(messages, **asked)
        key = request.key(model, SAMPLING, ENGINE)
        answer = asdict(ChatAnswer(text, None if text else "prompt_too_long: 9", "stop", 20, 5))
        self._keep("chat", model, {"key": key, **answer, "settings": request.settings(SAMPLING, ENGINE), **asdict(trace(request))}, note)
        return key

    def reward(self, messages: list[dict[str, str]], reward: float, note: bool = True) -> str:
        request = RewardRequest(messages)
        key = request.key(REWARD, ENGINE)
        answer = asdict(RewardAnswer(reward, None, 20))
        self._keep("reward", REWARD, {"key": key, **answer, "settings": request.settings(ENGINE), **asdict(trace(request))}, note)
        return key

    def vector(self, text: str) -> str:
        key = digest_of("embedding", MiniLM.name, text)
        store = ResponseStore(self.store, "embedding", MiniLM.name)
        if len(store.missing(pl.Series([key]))):
            store.append(pl.DataFrame({"key": [key], "vector": [[1.0, 0.0]]}))
        self.used.setdefault(("embedding", MiniLM.name), []).append(key)
        return key

    def _keep(self, kind: str, model: ModelRef, row: dict[str, Any], note: bool) -> None:
        store = ResponseStore(self.store, kind, model.identity)
        store.append(pl.DataFrame([{name: row.get(name) for name in store.schema}], schema=store.schema))
        if note:
            self.used.setdefault((kind, model.identity), []).append(row["key"])

    def written(self) -> World:
        """Write all tables that have rows, and what the last materialization used."""
        for name, rows in self.rows.items():
            table = TABLES[name]
            frame = pl.DataFrame([{**dict.fromkeys(table.columns), **row} for row in rows], schema=table.schema)
            partitions = {None: None, "month": MONTHS, "recipe": ["base", "dpo_rewards_online", "dpo_rewrites"]}[table.partition_column]
            self.lake.write(name, frame, partitions)
        uses.record(self.store, "everything", None, "run", self.used)
        return self


def world(root: Path) -> World:
    """Ann and Bob share an address; each criticises a reply, and has an opening ranked, under the other's persona too; Eve is held out."""
    made = World(root)
    for owner, name, follow_up in ((ANN, "ca", "Shorter, please."), (BOB, "cb", "continue")):
        _criticism(made, owner, name, follow_up)
    named = made.chat([user("Name what both say")], '{"name": "short answers"}', JUDGE, json_schema=json.dumps({"type": "object"}))
    for complaint in made.rows["unmet_wishes"]:
        complaint["call_ids"] = [named]
    for owner, donor, name, request in ((ANN, BOB, "ca2", "Which tulips are early?"), (BOB, ANN, "cb2", "Which roses are late?")):
        _ranked(made, owner, donor, name, request)
        _online(made, owner, name, request)
    _evaluated(made)
    for owner, conversations, group in ((ANN, 2, ANN), (BOB, 2, ANN), (EVE, 1, EVE)):
        split = "test" if owner == EVE else "train"
        made.add("users", user_id=owner, conversations=conversations, split_group=group, split=split)
    made.add("quarantine", row_id="f#1", month="2023-04", conversation_id="ca", reason="duplicate_conversation")
    made.add("quarantine", row_id="f#2", month="2023-04", conversation_id="cz", reason="toxic")
    made.add("reattempt_rates", dimension="all", level="all", denominator="follow_ups", templates="included", value=0.5)
    return made.written()


def persona_of(owner: str) -> str:
    return f"- wants short answers ({owner[:2]})"


def _criticism(made: World, owner: str, name: str, follow_up: str) -> None:
    at, month, who = START, "2023-04", owner[:2]
    texts = [(SHARED, f"Logged one {who}."), (follow_up, f"Logged two {who}.")]
    messages = [
        {"message_id": f"{name}:{n}", "message_index": n, "role": "assistant" if n % 2 else "user", "content": text, "sent_at": at}
        for n, text in enumerate(text for turn in texts for text in turn)
    ]
    shared = {"conversation_id": name, "user_id": owner, "month": month}
    made.add("conversations", **shared, started_at=at, messages=messages, repairs=[], redactions=[])
    reply = f"Regenerated one {who}."
    histories = ([], [user(SHARED), assistant(reply)])
    for number, (said, logged) in enumerate(texts):
        asked_at = at + timedelta(minutes=number)
        turn = shared | {"turn_id": f"{name}:{2 * number}", "turn": number + 1, "asked_at": asked_at, "prompt": said}
        made.add("turns", **turn, reply_id=f"{name}:{2 * number + 1}", reply=logged)
        # Both users open word for word alike, so the policy was asked once.
        call = made.chat([*histories[number], user(said)], f"Regenerated {number} {who}." if number else "Regenerated one.")
        judged = made.chat([user(f"Does {follow_up} fit {who}?")], "A", JUDGE, choices=("A", "B")) if number == 0 else None
        made.add(
            "wildllamachat",
            **turn,
            history=histories[number],
            logged_reply=logged,
            reply=f"Regenerated {number} {who}." if number else reply,
            model=POLICY.identity,
            follow_up_id=f"{name}:2" if number == 0 else None,
            follow_up=follow_up if number == 0 else None,
            follow_up_applies=True if number == 0 else None,
            applies_probability=0.9 if number == 0 else None,
            applies_judge=JUDGE.identity if number == 0 else None,
            call_id=call,
            applies_call_id=judged,
        )
    labels = [made.chat([user(f"Label {follow_up} of {who}")], "A", JUDGE, choices=tuple("ABCDEF"))]
    labels.append(made.chat([user(f"Span of {follow_up} of {who}")], follow_up, JUDGE))
    made.add(
        "feedback_labels",
        **shared,
        turn_id=f"{name}:2",
        turn=2,
        is_unanswered=False,
        label="reattempt_with_feedback",
        probability=0.8,
        reattempt_probability=0.8,
        span=follow_up,
        labeller="m@1",
        call_ids=labels,
    )
    made.add("unmet_wishes", **shared, turn_id=f"{name}:2", asked_at=at + timedelta(minutes=1), wish="short answers", topic="mint")
    wrote = made.chat([user(f"Persona of {who}")], "{}", JUDGE, json_schema=json.dumps({"type": "object"}))
    made.add(
        "personas",
        persona_line_id=f"line-{who}",
        user_id=owner,
        slot="length",
        line=persona_of(owner).removeprefix("- "),
        valid_from=at + timedelta(minutes=1),
        evidence=[f"{name}:2"],
        quotes=[follow_up],
        writer=JUDGE.identity,
        call_id=wrote,
    )
    for text in (SHARED, follow_up, f"Logged one {who}."):
        made.vector(text)
    asked = [user(SHARED), assistant(reply), user(f"Do as I say: {follow_up}")]
    calls = [made.chat(asked, f"Sorry, short {who}."), made.chat([*asked, user("Once more")], f"Short {who}.")]
    calls.append(made.chat([user(f"Does it meet {follow_up} {who}?")], "A", JUDGE, choices=("A", "B")))
    rewrite = {
        "turn_id": f"{name}:0",
        "user_id": owner,
        "month": month,
        "follow_up_id": f"{name}:2",
        "asked_at": at,
        "strategy": "feedback",
        "prompt": [user(SHARED)],
        "meets_feedback": 0.9,
        "is_off_policy": False,
        "persona": "",
        "persona_line_ids": [],
        "model": POLICY.identity,
    }
    written = {"original": reply, "feedback": follow_up, "rewrite": f"Short {who}.", "is_repaired": True, "pair_judge": JUDGE.identity}
    made.add("rewrites", rewrite_id=digest_of("rewrite", name), **rewrite, **written, follow_up_applies=True, call_ids=calls)
    calls = [*calls, *(made.reward([user(SHARED), assistant(text)], value) for text, value in ((f"Short {who}.", 2.0), (reply, 1.0)))]
    sides = {"chosen": f"Short {who}.", "rejected": reply, "chosen_reward": 2.0, "rejected_reward": 1.0}
    pair = rewrite | sides | {"pair_id": digest_of("rewrite", name), "reward_model": REWARD.identity, "call_ids": calls}
    made.add("rewrite_pairs", **pair, is_kept=True, drop_reasons=[])
    dropped = {"pair_id": digest_of("scratch", name), "strategy": "scratch", "is_kept": False, "drop_reasons": ["refusal", "too_similar"]}
    made.add("rewrite_pairs", **pair | dropped)
    of_turn = {"turn_id": f"{name}:0", "user_id": owner, "month": month}
    edit = of_turn | {"feedback_id": f"{name}:1/edit/0", "kind": "edit", "giver": "end_user"}
    made.add("explicit_feedback", **edit, conversation_id=name, reply_id=f"{name}:1", text=f"Edited {who}.")
    sides = {"prompt": [user(SHARED)], "chosen": f"Edited {who}.", "rejected": f"Logged one {who}.", "persona": "", "persona_line_ids": []}
    kept = {"is_kept": True, "drop_reasons": [], "evidence": "strong", "is_off_policy": True, "model": "end_user"}
    made.add("explicit_pairs", pair_id=digest_of("explicit", name), **edit, asked_at=at, **sides, **kept)
    # Bob's pair was taken for a near duplicate of Ann's.
    first = None if owner == ANN else digest_of("rewrite", "ca")
    fate = {"is_kept": first is None, "drop_reasons": ["near_duplicate"] if first else [], "duplicate_of": first}
    made.add("preference_pairs", **_without_month(pair), **fate, source="rewrites", split="train")


def _ranked(made: World, owner: str, donor: str, name: str, request: str) -> None:
    at, month, who = START + timedelta(days=40), "2023-05", owner[:2]
    persona, lines = persona_of(owner), [f"line-{who}"]
    shared = {"conversation_id": name, "user_id": owner, "month": month}
    made.add("conversations", **shared, started_at=at, messages=[], repairs=[], redactions=[])
    made.add(
        "turns", **shared, turn_id=f"{name}:0", turn=1, asked_at=at, prompt=f" {request}", reply_id=f"{name}:1", reply=f"Logged {name}."
    )
    made.vector(request)
    of_turn = {"turn_id": f"{name}:0", "user_id": owner, "month": month, "asked_at": at, "prompt": [user(request)]}
    known = {"persona": persona, "persona_line_ids": lines, "model": POLICY.identity}
    replies = [f"Reply {n} {name}." for n in range(2)]
    written = [made.chat(with_persona([user(request)], persona), reply, sample_index=n) for n, reply in enumerate(replies)]
    for number, (reply, call) in enumerate(zip(replies, written, strict=True)):
        made.add("candidates", candidate_id=f"{name}:0#{number}", **of_turn, **known, sample_index=number, reply=reply, call_id=call)
    for condition, seen in (("own", owner), ("shuffled", donor)):
        shown = with_persona([user(request)], persona_of(seen))
        scored = [made.reward([*shown, assistant(reply)], float(number)) for number, reply in enumerate(replies)]
        for number, call in enumerate(scored):
            named = {"candidate_id": f"{name}:0#{number}", "condition": condition, "turn_id": f"{name}:0", "month": month}
            reward = {"persona_user_id": seen, "reward": float(number), "reward_model": REWARD.identity, "call_id": call}
            made.add("candidate_rewards", **named, **reward)
        pair = {
            "pair_id": digest_of("reward", name, condition),
            **of_turn,
            **known,
            "chosen": replies[1],
            "rejected": replies[0],
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
            "is_kept": True,
            "drop_reasons": [],
            "reward_model": REWARD.identity,
            "call_ids": [*written, *scored],
        }
        made.add("reward_pairs", **pair, condition=condition, chosen_id=f"{name}:0#1", rejected_id=f"{name}:0#0")
        source = "rewards" if condition == "own" else "rewards_shuffled"
        made.add("preference_pairs", **_without_month(pair), source=source, split="train", strategy="best_of_n", is_off_policy=False)


def _online(made: World, owner: str, name: str, request: str) -> None:
    """The second round of a recipe: the policy that the first one trained writes two replies."""
    persona, recipe, policy = persona_of(owner), "dpo_rewards_online", ModelRef("town/policy-round-1", "o1")
    shown = with_persona([user(request)], persona)
    shared = {"recipe": recipe, "round": 2, "split": "train", "turn_id": f"{name}:0", "user_id": owner, "prompt": [user(request)]}
    shared |= {"asked_at": START + timedelta(days=40), "persona": persona, "persona_line_ids": [f"line-{owner[:2]}"]}
    shared |= {"model": policy.identity, "reward_model": REWARD.identity}
    calls, ids = [], []
    for number in range(2):
        reply = f"Later reply {number} {name}."
        written = made.chat(shown, reply, policy, sample_index=number)
        scored = made.reward([*shown, assistant(reply)], float(number))
        calls += [written, scored]
        ids.append(f"{recipe}/2/{name}:0#{number}")
        answer = {"reply": reply, "reward": float(number), "call_id": written, "reward_call_id": scored}
        made.add("online_candidates", candidate_id=ids[-1], **shared, sample_index=number, **answer)
    sides = {"chosen": f"Later reply 1 {name}.", "rejected": f"Later reply 0 {name}.", "chosen_reward": 1.0, "rejected_reward": 0.0}
    kept = {"is_kept": True, "drop_reasons": [], "call_ids": calls}
    made.add("online_pairs", pair_id=digest_of("online", name), **shared, **sides, chosen_id=ids[1], rejected_id=ids[0], **kept)


def _evaluated(made: World) -> None:
    at = START + timedelta(days=41)
    shared = {"conversation_id": "ce", "user_id": EVE, "month": "2023-05"}
    made.add("conversations", **shared, started_at=at, messages=[], repairs=[], redactions=[])
    made.add("turns", **shared, turn_id="ce:0", turn=1, asked_at=at, prompt="Bake a cake.", reply_id="ce:1", reply="Logged cake.")
    of_eve = {"prompt_id": "user_eval:ce:0", "benchmark": "user_eval"}
    prompt = {"prompt": [user("Bake a cake.")], "persona": "", "persona_line_ids": []}
    made.add("eval_prompts", **of_eve, **prompt, user_id=EVE, turn_id="ce:0", asked_at=at)
    made.add("eval_prompts", prompt_id="arithmetic:1", benchmark="arithmetic", prompt=[user("1 + 1?")], persona="", reference="2")
    for recipe in ("base", "dpo_rewrites"):
        for prompt_id, text in (("user_eval:ce:0", "Bake a cake."), ("arithmetic:1", "1 + 1?")):
            model = ModelRef(f"town/{recipe}", "c1")
            answer = {"reply": f"{recipe} says", "model": model.identity, "call_id": made.chat([user(text)], f"{recipe} says", model)}
            asked = {"prompt_id": prompt_id, "benchmark": prompt_id.partition(":")[0]}
            made.add("responses", response_id=f"{recipe}/{prompt_id}", recipe=recipe, **asked, **answer)
        compared = {
            "judgement_id": f"j-{recipe}",
            "recipe": recipe,
            "opponent": "base",
            "judge": "town",
            "criterion": "overall",
            "verdict": "tie",
        }
        made.add("judgements", **compared, **of_eve, user_id=EVE, order="recipe_first")


def _without_month(pair: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in pair.items() if name != "month"}
