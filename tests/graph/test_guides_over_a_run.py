"""What the guides ask of a finished run works on one: scores, comparisons, exports of checkpoints, single months."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import guides
from tests.graph.conftest import Run

PAGES = sorted(page for folder in ("how-to", "tutorial") for page in (guides.ROOT / "docs" / folder).glob("*.md"))
BLOCKS = [block for page in PAGES for block in guides.blocks(page)]


@pytest.mark.slow
def test_what_the_guides_ask_of_a_finished_run_works(undisturbed: Run, tmp_path: Path) -> None:
    reader = guides.Reader(tmp_path, undisturbed.env | {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    for block in BLOCKS:
        if block.why_not == guides.OVER_A_RUN or block.file.startswith("gsm8k/"):
            reader.follow(block)
