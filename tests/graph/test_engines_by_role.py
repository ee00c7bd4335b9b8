"""A role with an engine of its own: a judge behind a server, in a run like any other."""

from __future__ import annotations

import math
import subprocess
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from dagster import AssetKey, DagsterInstance

from rlhi_dagster.provenance.answers import located
from rlhi_dagster.store.compaction import folders
from rlhi_dagster.store.garbage import Rule, collect
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import ANSWERED_AT
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
    server = {"kind": "openai", "base_url": f"{address}/v1", "chunk_size": 16, "prices": {"judges/long": PRICE}}
    settings["models"]["judge"] = {"served": "judges/long@r1", "engine": server}
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
    judgements = run.table("judgements").filter(pl.col("recipe") == RECIPE, pl.col("benchmark").str.starts_with("user_eval"))
    assert judgements["judge"].unique().to_list() == ["judges/long@r1"]
    assert judgements["verdict"].null_count() == judgements["error"].count() == 0
    chosen = judgements.drop_nulls("call_id")
    assert chosen["call_id"].n_unique() == asked, "each question has its rows"
    assert chosen.select(pl.sum_horizontal(pl.col("^.*_probability$"))).to_series().to_list() == pytest.approx([1.0] * len(chosen))
    likeliest = pl.concat_list(f"{verdict}_probability" for verdict in ("recipe", "opponent", "tie")).list.arg_max()
    verdicts = chosen.select(pl.col("verdict"), likeliest.replace_strict({0: "recipe", 1: "opponent", 2: "tie"}).alias("likeliest"))
    assert verdicts["verdict"].equals(verdicts["likeliest"])
    assert 0 < asked <= len(judgements)
    assert judge.asked == asked, "a second run asks nothing"
    monkeypatch.setenv("DAGSTER_HOME", run.env["DAGSTER_HOME"])
    with DagsterInstance.get() as instance:
        runs = instance.fetch_materializations(AssetKey("judgements"), limit=2).records
        first = runs[1].asset_materialization.metadata
        observed = instance.fetch_observations(AssetKey("judgements"), limit=1).records[0].event_log_entry.asset_observation.metadata
    assert first["calls/answered"].value == asked
    assert "calls/errors" not in first, "what is 0 is not shown"
    assert first["calls/cost_usd"].value == pytest.approx(asked * (10 * 100 + 5 * 200) / 1e6, abs=1e-4)
    assert observed["forecast/missing"].value == asked
    assert observed["forecast/cost_usd"].value > 0
    what_evaluation_rests_on_is_no_garbage(run)


def what_evaluation_rests_on_is_no_garbage(run: Run) -> None:
    """Every call that replies and verdicts name is in the store, and stays when all unreferenced answers go."""
    root = Path(run.lake.root).parent / "responses"
    named = {key for table in ("responses", "judgements") for key in run.table(table)["call_id"].drop_nulls()}
    assert run.table("responses")["call_id"].null_count() == 0
    assert named == set(located(root, named))
    [judged] = [folder for kind, folder in folders(root) if kind == "chat" and folder.name.startswith("judges-long")]
    stray = pl.read_parquet(next(judged.glob("segment-*.parquet"))).head(1).with_columns(key=pl.lit("0" * 32))
    ResponseStore(root, "chat", "judges/long@r1").append(stray.drop(ANSWERED_AT))
    for file in (file for kind, folder in folders(root) if kind == "chat" for file in folder.glob("segment-*.parquet")):
        pl.read_parquet(file).with_columns(pl.col(ANSWERED_AT) - timedelta(days=2)).write_parquet(file)
    gone = collect(root, Rule(None, is_unreferenced=True), delete=True)
    assert next(each.rows for each in gone if each.folder == judged) == 1
    assert set(located(root, {*named, "0" * 32})) == named
