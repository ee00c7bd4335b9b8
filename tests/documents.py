"""The parts of the documents that are made from the code: tables of the layouts and of the columns that are read; and whole pages.

What belongs here: their text, and writing it. What does not: text by hand, and what stands on
whole pages (``tests.reference``). ``python -m tests.documents`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from rlhi_dagster.conversations.sources.columns import USUAL
from rlhi_dagster.conversations.sources.layouts import LAYOUTS
from tests.reference import PAGES

ROOT = Path(__file__).parents[1]


def layouts() -> str:
    """The layouts in the order in which they are tried."""
    return _table(("logs", "recognised by", "kind"), [(each.title, each.needs, f"`{each.kind}`") for each in LAYOUTS.values()])


def columns() -> str:
    """The usual names of columns, in the order in which they are looked for."""
    return _table(("field", "columns"), [(f"`{field}`", ", ".join(f"`{name}`" for name in names)) for field, names in USUAL.items()])


PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "layouts": ("docs/reference/logs.md", layouts),
    "columns": ("docs/reference/logs.md", columns),
}
"""By the name between its marks: the document, and what makes the part."""


def renewed(name: str) -> str:
    """The document of a part, with the part as it should be."""
    file, make = PARTS[name]
    text, found = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda marks: f"{marks[1]}{make()}\n{marks[2]}", (ROOT / file).read_text(), flags=re.S
    )
    if found != 1:
        raise ValueError(f"{file} has {found} parts between <!-- {name} --> and <!-- /{name} -->, not one")
    return text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    drawn = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([drawn[0], f"|{'---|' * len(head)}", *drawn[1:]])


def main() -> None:
    """Write all parts, and the pages of the reference."""
    for name, (file, _) in PARTS.items():
        (ROOT / file).write_text(renewed(name))
    for file, make in PAGES.items():
        (ROOT / file).write_text(make())


if __name__ == "__main__":
    main()
