"""The reference's log-probabilities in the response store: named by rows alone, cared for like other answers, gone with a user."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from rlhi_dagster.cli import store_command
from rlhi_dagster.engines.base import ChatRequest, trace
from rlhi_dagster.engines.models import MANIFEST, ModelRef
from rlhi_dagster.forgetting.forget import Outputs, forget
from rlhi_dagster.graph.resources import TrainingRun, Workers
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.provenance.answers import Reason, explain, locate
from rlhi_dagster.store import uses
from rlhi_dagster.store.compaction import compact
from rlhi_dagster.store.garbage import Rule, collect
from rlhi_dagster.store.integrity import verify
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import ANSWERED_AT
from rlhi_dagster.store.stats import stats
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.reference_keys import KIND, reference_key, told
from rlhi_dagster.training.settings import DPOSettings
from tests.lakes import ANN, POLICY, persona_of, user, world

START = ModelRef("town/policy", "p1")
SETTINGS = DPOSettings(batch_size=4, micro_batch_size=4)


def pair(number: int, persona: str = "Likes lists.") -> dict[str, Any]:
    prompt = with_persona([user(f"How do I grow {number} tulips?")], persona)
    return {"pair_id": f"p{number}", "prompt": prompt, "chosen": f"- {number}", "rejected": "No."}


def keep(root: Path, *rows: dict[str, Any], model: ModelRef = START, settings: DPOSettings = SETTINGS, days: float = 0) -> list[str]:
    """Keep log-probabilities as the worker does, some days ago; their keys."""
    store = ResponseStore(root, KIND, model.identity)
    keys = [reference_key(model, row, settings) for row in rows]
    kept = [
        {
            "key": key,
            "chosen_logp": -3.25,
            "rejected_logp": -9.5,
            "settings": told(row, settings),
            **asdict(trace(ChatRequest(row["prompt"]))),
        }
        for key, row in zip(keys, rows, strict=True)
    ]
    (segment,) = store.append(pl.DataFrame(kept, schema=store.schema))
    then = datetime.now(UTC) - timedelta(days=days)
    pl.read_parquet(segment).with_columns(pl.lit(then).cast(pl.Datetime("us", "UTC")).alias(ANSWERED_AT)).write_parquet(segment)
    return keys


def test_stats_verify_and_compaction_know_the_kind(tmp_path: Path) -> None:
    for number in range(3):
        keep(tmp_path, pair(number))
    folder = ResponseStore(tmp_path, KIND, START.identity).folder
    found = stats(KIND, folder)
    assert (found.rows, found.segments, found.errors.total()) == (3, 3, 0)
    assert verify(KIND, folder) == []
    assert compact(folder, KIND).segments_after == 1
    assert verify(KIND, folder) == []
    keys = pl.Series([reference_key(START, pair(number), SETTINGS) for number in range(3)])
    store = ResponseStore(tmp_path, KIND, START.identity)
    assert store.lookup(keys).select("chosen_logp", "rejected_logp").unique().row(0) == (-3.25, -9.5)


def test_what_an_earlier_pair_differs_in_is_told_without_its_text(tmp_path: Path) -> None:
    keep(tmp_path, pair(1), days=3)
    cases = {
        Reason.PERSONA: keep(tmp_path, pair(1, "Hates lists.")),
        Reason.REVISION: keep(tmp_path, pair(1), model=ModelRef("town/policy", "p2")),
        Reason.SETTINGS: keep(tmp_path, pair(1) | {"rejected": "Never."}),
        Reason.NEW: keep(tmp_path, pair(7)),
    }
    for reason, (key,) in cases.items():
        (found,) = locate(tmp_path, key)
        compared = explain(found)
        assert compared.reasons == (reason,)
        assert "tulips" not in str(found) + str(compared)


def test_the_command_tells_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))
    (key,) = keep(tmp_path / "responses", pair(1))
    uses.record(tmp_path / "responses", "checkpoints", None, "run", {(KIND, START.identity): [key]})
    lines = [store_command.run(argparse.Namespace(action=action), lambda line: None) for action in ("stats", "verify")]
    lines += [store_command.run(argparse.Namespace(action="explain", what=what), lambda line: None) for what in (key[:10], "checkpoints")]
    assert "reference town-policy@p1: 1 answers in 1 files" in lines[0]
    assert "reference town-policy@p1: sound" in lines[1]
    assert "checkpoints" in lines[2]
    assert "1 answers" in lines[3]
    assert "tulips" not in "".join(lines)


# What an asset used


def run(out: Path, rows: list[dict[str, Any]], validation: list[dict[str, Any]]) -> TrainingRun:
    train, held_out = (pl.DataFrame(each, schema=TRAINING_ROWS) for each in (rows, validation))
    made = TrainingRun(out.name, "dpo", START, train, held_out, SETTINGS, out, {})
    out.mkdir(parents=True)
    (out / MANIFEST).write_text(json.dumps({"inputs": made.inputs}))
    return made


def test_training_notes_the_pairs_that_it_used_and_gc_keeps_them(tmp_path: Path) -> None:
    store = tmp_path / "responses"
    used = keep(store, pair(0), pair(1), pair(2), days=5)
    stale = keep(store, pair(8), days=5)
    runs = [run(tmp_path / "a", [pair(0), pair(1)], [pair(2)]), run(tmp_path / "b", [pair(1), pair(5)], [])]

    @dg.asset
    def checkpoints(context):  # type: ignore[no-untyped-def]
        assert Workers(tmp_path).train(context, runs).keys() == {"a", "b"}
        return dg.MaterializeResult()

    assert dg.materialize([checkpoints]).success
    assert set(uses.referenced(store, KIND, START.identity)) == set(used), "pair 5 was too long: it has no answer"
    assert [record.asset for record in uses.assets_of(store, used[1])] == ["checkpoints"]
    (garbage,) = collect(store, Rule(None, is_unreferenced=True), delete=True)
    assert (garbage.kind, garbage.rows, garbage.of_rows) == (KIND, 1, 4)
    left = ResponseStore(store, KIND, START.identity)
    assert left.missing(pl.Series([*used, *stale])).to_list() == stale


def test_other_training_notes_nothing(tmp_path: Path) -> None:
    made = run(tmp_path / "a", [pair(0)], [])

    @dg.asset
    def policy(context):  # type: ignore[no-untyped-def]
        fresh = TrainingRun("a", "policy", None, made.rows, None, SETTINGS, made.out, {})
        (made.out / MANIFEST).write_text(json.dumps({"inputs": fresh.inputs}))
        Workers(tmp_path).train(context, [fresh])
        return dg.MaterializeResult()

    assert dg.materialize([policy]).success
    assert uses.kinds(tmp_path / "responses") == set()


# Forgetting


@pytest.mark.parametrize("model", [POLICY, ModelRef("town/policy", "older")])
def test_a_forgotten_users_pairs_go_those_of_others_stay(tmp_path: Path, model: ModelRef) -> None:
    made = world(tmp_path / "data")
    opening = [user("Which tulips are early?")]
    mine = [
        {"prompt": with_persona(opening, persona_of(ANN)), "chosen": "a", "rejected": "b"},
        {"prompt": opening, "chosen": "a", "rejected": "b"},
        {"prompt": opening, "chosen": "a reply of an earlier run", "rejected": "b"},
    ]
    theirs = [{"prompt": [user("Which roses are late?")], "chosen": "a", "rejected": "b"}]
    gone, left = keep(made.store, *mine, model=model), keep(made.store, *theirs, model=model)
    found = forget(Outputs(made.root), ANN)
    assert set(gone) <= found.keys
    assert found.answers[KIND, ResponseStore(made.store, KIND, model.identity).folder.name] == 3
    store = ResponseStore(made.store, KIND, model.identity)
    assert set(store.missing(pl.Series([*gone, *left]))) == set(gone)
    assert verify(KIND, store.folder) == []
