"""Checkpoints answering public benchmarks: dialogues turn by turn, problems several times, and what a judge is shown of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.base.tables import BENCHMARK_RESPONSES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.evaluation import Benchmark
from rlhi_dagster.evaluation.benchmarks import PUBLIC, asking

MODELS = {"base": ModelRef("m", "1"), "mine": ModelRef("m", "2")}


def answered(batches: Sequence[tuple[ModelRef, Sequence[ChatRequest]]]) -> list[list[ChatAnswer]]:
    """Each reply tells model, sample and what was asked; the second model has no reply to the first question."""
    return [[_answer(model, each) for each in requests] for model, requests in batches]


def _answer(model: ModelRef, request: ChatRequest) -> ChatAnswer:
    if model.revision == "2" and request.messages[-1]["content"] == "q1 first":
        return ChatAnswer(None, "too_long: x", "error", 0, 0)
    return ChatAnswer(
        f"{model.revision}.{request.sample_index}: " + " | ".join(each["content"] for each in request.messages), None, "stop", 1, 1
    )


def opponents(benchmark: Benchmark, folder: Path) -> pl.DataFrame:
    return PUBLIC[benchmark].load(folder).opponents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dialogues = [{"question_id": n, "category": "c", "turns": [f"q{n} first", f"q{n} then"]} for n in (1, 2)]
    (tmp_path / "question.jsonl").write_text("\n".join(map(json.dumps, dialogues)))
    (tmp_path / "aime24.test.jsonl").write_text(json.dumps({"id": "p", "question": "What is 1+1?", "answer": "2"}) + "\n")
    arena = {"uid": "a", "category": "arena-hard-v0.1", "prompt": "hard"}
    (tmp_path / "arena-hard-v0.1.question.jsonl").write_text(json.dumps(arena) + "\n")
    return tmp_path


def test_dialogues_go_turn_by_turn_and_problems_are_asked_several_times(folder: Path) -> None:
    items = asking.load({Benchmark.MT_BENCH: folder, Benchmark.AIME_24: folder})
    found = asking.responses(items, MODELS, 2, answered)
    assert BENCHMARK_RESPONSES.schema == found.schema
    replies = {(row["recipe"], row["prompt_id"], row["sample"]): row["reply"] for row in found.to_dicts()}
    assert len(replies) == 2 * (4 + 2)
    assert replies["base", "mt_bench:c/1#2", 0] == "1.0: q1 first | 1.0: q1 first | q1 then"
    assert {sample for recipe, name, sample in replies if name == "aime_24:p"} == {0, 1}
    assert replies["mine", "aime_24:p", 1].startswith("2.1: What is 1+1?")
    silent = found.filter(recipe="mine", prompt_id="mt_bench:c/1#2").to_dicts()[0]
    assert (silent["reply"], silent["error"]) == (None, asking.NO_EARLIER_REPLY)


def test_a_judge_sees_the_dialogue_as_it_was_and_a_published_opponent_before_the_base(folder: Path) -> None:
    items = asking.load({Benchmark.MT_BENCH: folder, Benchmark.ARENA_HARD_V0_1: folder})
    found = asking.responses(items, MODELS, 1, answered)
    base, mine = (found.filter(recipe=name) for name in MODELS)
    shown, own, _ = asking.rated(items, Benchmark.MT_BENCH, opponents(Benchmark.MT_BENCH, folder), mine, base)
    prompts = dict(shown.select("prompt_id", "prompt").iter_rows())
    assert [each["content"] for each in prompts["mt_bench:c/2#2"]] == ["q2 first", "2.0: q2 first", "q2 then"]
    assert set(own["prompt_id"]) == set(shown["prompt_id"])
    _, _, others = asking.rated(items, Benchmark.ARENA_HARD_V0_1, opponents(Benchmark.ARENA_HARD_V0_1, folder), mine, base)
    assert others["recipe"].to_list() == ["base"]
    (folder / "model_answer").mkdir()
    published = {"uid": "a", "messages": [{"role": "user", "content": "hard"}, {"role": "assistant", "content": "so"}]}
    (folder / "model_answer" / "gpt-4-0314.jsonl").write_text(json.dumps(published))
    _, _, others = asking.rated(items, Benchmark.ARENA_HARD_V0_1, opponents(Benchmark.ARENA_HARD_V0_1, folder), mine, base)
    assert others.select("recipe", "reply").rows() == [("gpt-4-0314", "so")]
