"""A profile of five lines, a recipe and a prompt of one's own: both jobs run with them, and the package stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.graph import pipes
from tests.snapshot import COMMIT, Engine, Workers, all_jobs, profile, scripted

FIVE_LINES = f"""extends: town.yaml
recipes: arms
prompts: words
models: {{judge: {{hub: judges/mine@{COMMIT}, sampling: {{max_new_tokens: 9}}}}}}
seed: 11
"""
RECIPE = """description: rewrites at another rate
family: mine
against: [dpo_rewrites]
method: dpo
sources: [rewrites]
settings: {learning_rate: 0.0001}
"""
PROMPT = "Which of two replies would a sailor take?\n<conversation>\n{conversation}\n</conversation>\nA: {reply_a}\nB: {reply_b}\n"


class Listening(Engine):
    """Notes what chat models are asked, and how long their replies may be."""

    def __init__(self, replies: Any) -> None:
        super().__init__(replies)
        self.asked: list[tuple[str, int]] = []

    def answer(self, calls: Iterator[tuple[str, ChatRequest]], sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        def noted() -> Iterator[tuple[str, ChatRequest]]:
            for key, request in calls:
                self.asked.append((request.messages[-1]["content"], sampling.max_new_tokens))
                yield key, request

        return super().answer(noted(), sampling)


@pytest.mark.slow
def test_a_profile_of_five_lines_with_a_recipe_and_a_prompt_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    (tmp_path / "town.yaml").write_text(yaml.safe_dump(profile(tmp_path, "town")))
    for name, text in (("mine.yaml", FIVE_LINES), ("arms/my_rewrites.yaml", RECIPE), ("words/judge.md", PROMPT)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    engine = Listening(scripted(tmp_path / "town").replies)
    monkeypatch.setattr(pipes, "run", Workers(engine).run)

    lake = all_jobs(profiles.load(str(tmp_path / "mine.yaml")))

    manifest = json.loads((lake.artefact_path("checkpoints", "my_rewrites") / "manifest.json").read_text())
    assert (manifest["method"], manifest["settings"]["learning_rate"]) == ("dpo", 0.0001)
    judged = [most for text, most in engine.asked if "Which of two replies would a sailor take?" in text]
    assert judged
    assert set(judged) == {9}
    scores = lake.scan("scores").collect().filter(recipe="my_rewrites", judge=f"judges/mine@{COMMIT[:16]}")
    assert "win_rate" in set(scores["metric"])
    assert "my_rewrites" in (lake.artefact_path("report") / "index.html").read_text()
