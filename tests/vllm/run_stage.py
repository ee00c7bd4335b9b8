"""Runs the whole preference stage on a miniature town through vLLM: ``python tests/vllm/run_stage.py FOLDER PYTHON``.

Runs in the project's own environment, whose workers then run models with PYTHON, the interpreter of vLLM's. Writes where the tables
are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from tests.graph.conftest import miniature


def main(folder: Path, python: str) -> None:
    run = miniature(folder)
    profile = Path(run.env["RLHI_PROFILE"])
    settings = yaml.safe_load(profile.read_text())
    settings["engine"] = {"kind": "vllm", "dtype": "float32", "chunk_size": 64, "max_context_tokens": 1024, "python": python}
    # Both sides of every pair are scored, so that the reward model is asked at each of the places that ask it.
    settings["rewrites"]["filters"]["min_reward_margin"] = -100.0
    profile.write_text(yaml.safe_dump(settings))
    done = run.launch("preference_data", run.months())
    if done.returncode:
        sys.exit(done.stdout[-6000:] + done.stderr[-6000:])
    sys.stdout.write(run.lake.root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
