"""A user is forgotten after a whole run: the next one leaves no trace of them, and asks nobody else's questions again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.conversations import Reason
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.engines.models import MARK, digest_of
from rlhi_dagster.forgetting.forget import Outputs, look
from rlhi_dagster.store.compaction import folders
from rlhi_dagster.store.integrity import verify
from rlhi_dagster.training.artefacts import PAIRS
from tests.graph.conftest import BIN, Run

pytestmark = pytest.mark.slow


def rlhi(run: Run, *arguments: str) -> str:
    done = subprocess.run([BIN / "rlhi", *arguments], env=run.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(root: Path, kind: str) -> set[str]:
    files = [file for of_kind, folder in folders(root / "responses") if of_kind == kind for file in folder.glob("*.parquet")]
    return set(pl.concat(pl.read_parquet(file, columns=["key"]) for file in files)["key"])


def referenced(root: Path, kind: str) -> set[str]:
    records = pl.concat(pl.read_parquet(file) for file in (root / "responses" / "references").rglob("*.parquet"))
    return set(records.filter(kind=kind)["key"])


def asked(root: Path, kind: str) -> int:
    return sum(json.loads(file.read_text())["answered"] for file in (root / "responses" / "runs" / kind).rglob("*.json"))


def user_with_pairs(run: Run) -> str:
    """The user with the most pairs to train on, of both methods."""
    kept = run.table("preference_pairs").filter("is_kept", pl.col("user_id").is_not_null())
    of_users = kept.group_by("user_id").agg(pl.col("strategy").eq("feedback").any(), pl.col("pair_id").len().alias("pairs"))
    return of_users.filter("strategy").sort("pairs", "user_id", descending=[True, False])["user_id"][0]


def test_after_the_next_run_nothing_is_left_of_a_forgotten_user(undisturbed: Run, tmp_path: Path) -> None:
    run = undisturbed.copied(tmp_path / "run")
    root, user = Path(run.lake.root).parent, user_with_pairs(run)
    found = look(Outputs(root), user)
    theirs = {user, *(value for ids in found.found.ids.values() for value in ids)}
    conversations = found.found.ids["conversation"]
    pairs = found.found.ids["pair"]
    shared = {digest_of("embedding", MiniLM.name, text) for text in found.found.texts(run.lake)[1]}
    before = {kind: (stored(root, kind), referenced(root, kind), asked(root, kind)) for kind in ("chat", "reward", "embedding")}
    assert pairs
    assert found.keys & before["chat"][0]
    assert found.keys & before["reward"][0]
    assert found.keys & before["embedding"][0]
    learnt = set(pl.read_parquet(run.lake.artefact_path("reward_model") / PAIRS)["pair_id"]) & pairs

    shown = rlhi(run, "forget", user[:12])
    assert "nothing is removed without --yes" in shown
    rlhi(run, "forget", user[:12], "--yes")
    assert (run.lake.artefact_path("reward_model") / MARK).exists() == bool(learnt)
    assert "train it again" in rlhi(run, "summary"), "some checkpoint was trained on the user's pairs"
    done = run.launch("preference_data", run.months())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    for name in TABLES:
        if run.has(name):
            text = run.table(name).write_json()
            assert [value for value in theirs if json.dumps(value) in text] == [], name
    quarantine = run.table("quarantine").filter(pl.col("reason") == Reason.USER_FORGOTTEN.value)
    assert len(quarantine) >= len(conversations) > 0
    assert quarantine["conversation_id"].null_count() == len(quarantine)
    for kind, (kept, used, calls) in before.items():
        left = stored(root, kind)
        assert not left & found.keys, kind
        # What nobody uses any more would be the user's, but for vectors of texts that stand in another's messages, too, and for rewards of
        # others that changed: another reward model, another donor.
        if kind != "reward":
            assert (left & used) - referenced(root, kind) <= shared, kind
        assert kept - found.keys <= left, "an answer of somebody else went"
        # A request of somebody else may be drawn in the place of the user's; a reward model that had learnt from the user is another one.
        if kind != "reward":
            assert asked(root, kind) - calls <= 16, kind
    assert [problem for kind, folder in folders(root / "responses") for problem in verify(kind, folder)] == []
    assert list((root / "work").rglob("*.parquet")) == []
    assert not (run.lake.artefact_path("reward_model") / MARK).exists(), "trained again without the user"
    assert not set(pl.read_parquet(run.lake.artefact_path("reward_model") / PAIRS)["pair_id"]) & pairs
