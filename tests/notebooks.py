"""The example notebooks: scripts with cells are run, and written with what they print.

What belongs here: from ``docs/examples/*.py``, in the percent format that Jupyter and editors read, to ``*.ipynb`` beside them. What does
not: the examples. ``python -m tests.notebooks`` writes them anew; no Jupyter is needed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "examples"
_CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def cells(script: str) -> list[tuple[bool, str]]:
    """The cells of a script: whether each is text, and its source."""
    _, *parts = _CELL.split(script)
    found = zip(parts[::2], parts[1::2], strict=True)
    return [(bool(is_text), re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip() if is_text else body.strip()) for is_text, body in found]


def run(script: Path) -> str:
    """The notebook of a script, with what its cells print now."""
    names: dict[str, Any] = {"__name__": "__main__"}
    made = []
    for number, (is_text, source) in enumerate(cells(script.read_text(encoding="utf-8"))):
        cell: dict[str, Any] = {"cell_type": "markdown" if is_text else "code", "id": f"cell-{number}", "metadata": {}}
        cell["source"] = source.splitlines(keepends=True)
        if not is_text:
            cell |= {"execution_count": None, "outputs": _outputs(source, names, script)}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _outputs(source: str, names: dict[str, Any], script: Path) -> list[dict[str, Any]]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(ast.parse(source, str(script)), str(script), "exec"), names)
    lines = said.getvalue().splitlines(keepends=True)
    return [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []


def main() -> None:
    """Write all notebooks."""
    for script in sorted(FOLDER.glob("*.py")):
        script.with_suffix(".ipynb").write_text(run(script), encoding="utf-8")


if __name__ == "__main__":
    main()
