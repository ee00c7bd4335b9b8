"""What the targets of the Makefile launch, with stand-ins for `rlhi` and `dg`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.cli import ranges
from rlhi_dagster.graph import declare
from rlhi_dagster.training import recipes

STAND_IN = """#!/bin/sh
[ "$(basename $0) $1" = "rlhi home" ] && { echo /nowhere; exit; }
case "$1" in months) echo 2023-04...2023-09;; recipes) echo a...z;; *) echo "$(basename $0) $*";; esac
"""


def make(folder: Path, target: str, overridden: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a target; ``variables`` are the environment's."""
    for name in ("rlhi", "dg"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    (folder / "installed").touch()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("RLHI_", "DAGSTER_", "MAKE"))}
    command = ["make", target, f"BIN={folder}", f"INSTALLED={folder / 'installed'}", *overridden]
    if target == "lock":
        command.append(f"TESTED_SET={folder / 'set'}")
    return subprocess.run(command, cwd=profiles.ROOT, env=env | variables, capture_output=True, text=True, check=False)


def test_demo_refreshes_both_jobs_and_shows_the_scores(tmp_path: Path) -> None:
    done = make(tmp_path, "demo")
    assert done.stdout.splitlines() == ["rlhi refresh", "rlhi summary"], done.stderr


def test_village_is_the_demo_with_its_profile(tmp_path: Path) -> None:
    (tmp_path / "smollm2").touch()
    variables = [f"SMOLLM2={tmp_path / 'smollm2'}", "VILLAGE=echo simulate"]
    demo, whole = (make(tmp_path, target, variables).stdout.splitlines() for target in ("demo", "village"))
    assert whole == demo
    small = make(tmp_path, "village-small", variables).stdout.splitlines()
    assert small[0] == "simulate --out data/village/small --replies data/village --users 24"
    assert small[1:] == demo


@pytest.mark.parametrize(("profile", "only"), [("sample", None), ("town", recipes.names())])
def test_recipes_are_the_profiles(profile: str, only: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_PROFILE", profile)
    loaded = profiles.load(profile)
    first, *_, last = ranges.recipes()
    whole = declare.Place(loaded).recipes.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    assert whole == (only or sorted(loaded.project_recipes or ()))


def test_no_file_spells_out_the_range_of_all_recipes() -> None:
    files = [profiles.ROOT / "Makefile", profiles.ROOT / "README.md", *(profiles.ROOT / "docs").rglob("*.md")]
    assert [file.name for file in files if f"{recipes.names()[0]}..." in file.read_text()] == []


@pytest.mark.parametrize("variables", [{}, {"RLHI_PROFILE": "sample"}])
def test_data_of_the_sample_profile_needs_a_source(tmp_path: Path, variables: dict[str, str]) -> None:
    done = make(tmp_path, "data", **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: make data RLHI_SOURCE=" in done.stderr


LAUNCHED = ["rlhi refresh preference_data", "rlhi summary"]


@pytest.mark.parametrize("variables", [{"RLHI_PROFILE": "laptop"}, {"RLHI_PROFILE": "mine.yaml"}])
def test_data_of_another_profile_is_launched(tmp_path: Path, variables: dict[str, str]) -> None:
    done = make(tmp_path, "data", **variables)
    assert done.stdout.splitlines() == LAUNCHED, done.stderr


def test_data_of_a_source_says_first_what_the_logs_hold(tmp_path: Path) -> None:
    done = make(tmp_path, "data", RLHI_SOURCE="my logs.parquet")
    assert done.stdout.splitlines() == ["rlhi logs my logs.parquet --out //logs.html", *LAUNCHED], (
        done.stderr
    )  # the stand-in for home is /nowhere


PYTHON = f"""#!/bin/sh
case "$1 $2" in
"-m venv") echo "$(basename $0) $*"; ln -s {shutil.which("echo")} "$(dirname $0)/python" ;;
"-c "*) exec {sys.executable} -c "import sys; sys.version_info = (VERSION, 1); exec(sys.argv[1])" "$2" ;;
esac
"""
SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2; exit 127\n"
NAMES = ("python3.13", "python3.12", "python3.11", "python3", "mine")


def install(folder: Path, pythons: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``make install`` where ``pythons`` are found, of these versions, and all others are shims that fail."""
    for name in NAMES:
        script = PYTHON.replace("VERSION", pythons[name].replace(".", ", ")) if name in pythons else SHIM
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MAKE"))}
    env |= {"PATH": f"{folder}:{env['PATH']}"} | variables
    command = ["make", "install", f"BIN={folder}", f"INSTALLED={folder / 'installed'}"]
    return subprocess.run(command, cwd=profiles.ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("pythons", "given", "taken"),
    [
        ({"python3.13": "3.13", "python3.12": "3.12"}, {}, "python3.13"),
        ({"python3.11": "3.11", "python3": "3.10"}, {}, "python3.11"),
        ({"python3": "3.12"}, {}, "python3"),
        ({"python3.13": "3.13", "mine": "3.11"}, {"PYTHON": "mine"}, "mine"),
    ],
)
def test_install_takes_the_first_python_that_fits(tmp_path: Path, pythons: dict[str, str], given: dict[str, str], taken: str) -> None:
    done = install(tmp_path, pythons, **given)
    assert done.returncode == 0, done.stderr
    made, _, installed = [line for line in done.stdout.splitlines() if line.startswith((*NAMES, "-m pip"))]
    assert made == f"{taken} -m venv .venv"
    assert installed == "-m pip install --quiet --constraint .ci/constraints.txt --editable . --group dev"
    assert (tmp_path / "installed").exists()


@pytest.mark.parametrize(
    ("pythons", "given", "tried"),
    [
        ({"python3": "3.10"}, {}, "python3.13 python3.12 python3.11 python3"),
        ({"python3": "3.14"}, {}, "python3.13 python3.12 python3.11 python3"),
        ({"python3": "3.12"}, {"PYTHON": "mine"}, "mine"),
    ],
)
def test_install_says_what_is_needed_if_no_python_fits(tmp_path: Path, pythons: dict[str, str], given: dict[str, str], tried: str) -> None:
    done = install(tmp_path, pythons, **given)
    assert done.returncode == 2
    need = "Python 3.11, 3.12 or 3.13 with the module venv is needed, and none of these is one"
    assert done.stderr.splitlines()[0] == f"{need}: {tried}; name yours: make PYTHON=/path/to/python3.12"
    assert not (tmp_path / "installed").exists()


def test_there_are_two_doors_for_tests(tmp_path: Path) -> None:
    """``test`` leaves the slow ones out, ``test-all`` runs all; help shows both."""
    for name in ("python", "ruff", "lint-imports", "mypy"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$(basename $0) $*"\n')
        (tmp_path / name).chmod(0o755)
    lint = ["ruff check .", "ruff format --check .", "lint-imports --no-logo", "mypy "]
    pytest_ = "python -m pytest -n 2 --dist worksteal"
    said = {
        target: [line for line in make(tmp_path, target).stdout.splitlines() if str(tmp_path) not in line]
        for target in ("test", "test-all")
    }
    assert said == {"test": [*lint, f"{pytest_} -m not slow"], "test-all": [*lint, pytest_]}
    assert {line.split()[1] for line in make(tmp_path, "help").stdout.splitlines()} >= {"test", "test-all", "lock"}


def test_docs_writes_pages_and_notebooks_and_then_the_site(tmp_path: Path) -> None:
    for name in ("python", "mkdocs"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$(basename $0) $*"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "docs").touch()
    done = make(tmp_path, "docs", [f"DOCS={tmp_path / 'docs'}"])
    pages, notebooks, site = [line for line in done.stdout.splitlines() if line.startswith(("python ", "mkdocs "))]
    assert (pages, notebooks) == ("python -m tests.documents", "python -m tests.notebooks"), done.stderr
    assert site.startswith("mkdocs build --quiet --strict --config-file docs/mkdocs.yml")


def test_lock_writes_what_is_installed_without_local_builds(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nprintf '%s\\n' torch==2.13.0+cpu Jinja2==3.1.6 absl-py==2.5.1\n")
    (tmp_path / "python").chmod(0o755)
    done = make(tmp_path, "lock")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "set").read_text().splitlines()[2:] == ["absl-py==2.5.1", "Jinja2==3.1.6", "torch==2.13.0"]
