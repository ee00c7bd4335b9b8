"""A role with an engine of its own: a judge behind a server, in a run like any other."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import polars as pl
import pytest
import yaml
from dagster import AssetKey, DagsterInstance

from tests.graph.conftest import BIN, Run
from tests.servers import Asked, Told, completion, serving

pytestmark = pytest.mark.slow

RECIPE = "dpo_rewards"
PRICE = {"prompt_usd_per_million": 100.0, "completion_usd_per_million": 200.0}


class Judge:
    """Prefers the longer reply, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, asked: Asked) -> Told:
        if asked.method == "GET":
            return Told(payload={"data": [{"id": "judges/long"}]})
        self.asked += 1
        text = asked.json["messages"][-1]["content"]
        one, two = (text.split(f"<reply_{side}>")[1].split(f"</reply_{side}>")[0] for side in "ab")
        verdict = "A" if len(one) > len(two) else "B" if len(two) > len(one) else "C"
        top = [{"token": letter, "logprob": math.log(0.8 if letter == verdict else 0.1)} for letter in "ABC"]
        scores = {"content": [{"token": verdict, "logprob": math.log(0.8), "top_logprobs": top}]}
        return Told(payload=completion(verdict, logprobs=scores))


def judged(run: Run, folder: Path, address: str) -> Run:
    """A copy of the run with a judge behind ``address``."""
    copy = run.copied(folder)
    profile = Path(copy.env["RLHI_PROFILE"])
    settings = yaml.safe_load(profile.read_text())
    settings["evaluation"] |= {"judge": "chat", "judge_model": "judges/long", "judge_revision": "r1"}
    prices = {"judges/long": PRICE}
    settings["engines"] = {"judge": {"kind": "openai", "base_url": f"{address}/v1", "chunk_size": 16, "prices": prices}}
    profile.write_text(yaml.safe_dump(settings))
    return copy


def test_a_judge_behind_a_server_judges_and_is_counted(undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge()
    with serving(judge) as address:
        run = judged(undisturbed, tmp_path / "run", address)
        command = [BIN / "dg", "launch", "--assets", "judgements", "--partition", RECIPE]
        for _ in range(2):
            done = subprocess.run(command, env=run.env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            asked = judge.asked
    judgements = run.table("judgements").filter(pl.col("recipe") == RECIPE, pl.col("benchmark") == "user_eval")
    assert judgements["judge"].unique().to_list() == ["judges/long@r1"]
    assert judgements["verdict"].null_count() == 0
    assert 0 < asked <= len(judgements)
    assert judge.asked == asked, "a second run asks nothing"
    monkeypatch.setenv("DAGSTER_HOME", run.env["DAGSTER_HOME"])
    with DagsterInstance.get() as instance:
        runs = instance.fetch_materializations(AssetKey("judgements"), limit=2).records
        first = runs[1].asset_materialization.metadata
        observed = instance.fetch_observations(AssetKey("judgements"), limit=1).records[0].event_log_entry.asset_observation.metadata
    assert first["calls/answered"].value == asked
    assert first["calls/errors"].value == 0
    assert first["calls/cost_usd"].value == pytest.approx(asked * (10 * 100 + 5 * 200) / 1e6, abs=1e-4)
    assert observed["forecast/missing"].value == asked
    assert observed["forecast/cost_usd"].value > 0
