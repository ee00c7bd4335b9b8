"""Every module that a docstring or a document names is there: charters must not point at what is gone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhi_dagster.base.tables import TABLES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rlhi_dagster"
FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "assets").glob("*.py")])
SETTINGS = ROOT / "docs" / "reference" / "profile.md"
"""Dotted names there are settings, and the page is made from them (``tests.reference``)."""
DOCUMENTS = sorted(
    {ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"), ROOT / "data" / "README.md"} - {SETTINGS}
)
FIRST = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file())}
_FILE = re.compile(r"`+((?:[\w]+/)*[\w]+\.py)`+")
_DOTTED = re.compile(r"`+((?:rlhi_dagster\.)?[a-z_]+(?:\.\w+)+)(?:\([^`]*\))?`+")


def docstrings(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def names_of(module: Path) -> set[str]:
    """What a module has: definitions, assignments, imports, and attributes of its classes."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.alias | ast.arg):
            found.add(node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else (node.asname or node.name))
    return found


def has_file(named: str, beside: Path) -> bool:
    """Whether a file is there: beside who names it, or under the package or the project; a bare name may lie in any folder."""
    if any((folder / named).is_file() for folder in (beside, PACKAGE, ROOT)):
        return True
    return "/" not in named and any(
        path.name == named for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    )


def resolves(dotted: str) -> bool:
    """Whether a dotted name leads from the package to a module and to something that it has, or is a column of a table."""
    parts = dotted.removeprefix("rlhi_dagster.").split(".")
    if parts[0] in TABLES and parts[1:] and parts[1] in TABLES[parts[0]].columns:
        return True
    place = PACKAGE
    while parts and (place / parts[0] / "__init__.py").is_file():
        place /= parts.pop(0)
    if parts and (place / f"{parts[0]}.py").is_file():
        place /= f"{parts.pop(0)}.py"
    elif (place / "__init__.py").is_file():
        place /= "__init__.py"
    else:
        return False
    return set(parts) <= names_of(place)


def dangling(texts: Iterator[str], beside: Path) -> set[str]:
    found = set()
    for text in texts:
        found |= {named for named in _FILE.findall(text) if not has_file(named, beside)}
        dotted = [named for named in _DOTTED.findall(text) if not named.endswith((".py", ".md", ".yaml"))]
        first = {named: named.removeprefix("rlhi_dagster.").split(".")[0] for named in dotted}
        found |= {named for named, start in first.items() if (start in FIRST or named.startswith("rlhi_dagster.")) and not resolves(named)}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_docstring_names_is_there(file: Path) -> None:
    assert dangling(docstrings(file), file.parent) == set()


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_document_names_is_there(file: Path) -> None:
    assert dangling(iter([file.read_text(encoding="utf-8")]), file.parent) == set()


def test_a_module_that_is_gone_is_found() -> None:
    texts = ["See ``workers/gone.py`` and ``engines.nowhere.thing``, not ``engines.base.ChatRequest``, ``polars.DataFrame`` or `base.py`."]
    assert dangling(iter(texts), PACKAGE / "engines") == {"workers/gone.py", "engines.nowhere.thing"}
