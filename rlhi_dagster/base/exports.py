"""Which copies of a run's texts were made for somebody, so that who forgets a user is told of them.

What belongs here: the list ``exports.jsonl`` beside the lake. What does not: making exports (``export``) and what forgetting does with the
list (``forgetting``).
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = "exports.jsonl"


def note(root: Path, out: Path) -> None:
    """Add an export to the list, once for each place."""
    path = str(out.absolute())
    if root.is_dir() and path not in _listed(root):
        with (root / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(path) + "\n")


def made(root: Path) -> list[Path]:
    """Exports of these outputs that are still where they were written, in the order of their making.

    Raises:
        ValueError: The list is damaged; the message names the line.
    """
    return [path for path in map(Path, _listed(root)) if path.exists()]


def _listed(root: Path) -> list[str]:
    file = root / FILE
    found: list[str] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.is_file() else [], 1):
        try:
            path = json.loads(line)
        except ValueError:
            path = None
        if not isinstance(path, str):
            raise ValueError(f"{file}, line {number}, is no path of an export: take it out")
        found.append(path)
    return found
