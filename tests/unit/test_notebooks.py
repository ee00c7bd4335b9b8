"""The example notebooks show what their cells print."""

from __future__ import annotations

import pytest

from tests.notebooks import FOLDER, cells, run

SLOW = {"labels"}
"""Examples with more than a few texts for the encoder."""


@pytest.mark.parametrize(
    "name", [pytest.param(file.stem, marks=[pytest.mark.slow] if file.stem in SLOW else []) for file in sorted(FOLDER.glob("*.py"))]
)
def test_a_notebook_shows_what_its_cells_print(name: str) -> None:
    assert (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8") == run(FOLDER / f"{name}.py"), "python -m tests.notebooks renews it"


def test_a_script_is_cut_into_cells() -> None:
    script = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\nprint(x)\n"
    assert cells(script) == [(True, "# Title\n\nText."), (False, "x = 1\nprint(x)")]
