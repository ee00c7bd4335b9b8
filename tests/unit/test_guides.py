"""What the guides show is so: commands can be given, profiles can be loaded, and what the README shows of the sample is in it."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml

import rlhi_dagster as rlhi
from rlhi_dagster import definitions, profiles
from rlhi_dagster.cli.main import parser
from rlhi_dagster.personas import settings as personas
from tests import guides
from tests.lakes import world

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").glob("*.md"), ROOT / "data" / "README.md"])
GUIDES = sorted(
    [*(ROOT / "docs" / "how-to").glob("*.md"), *(ROOT / "docs" / "tutorial").glob("*.md"), ROOT / "docs" / "reference" / "python.md"]
)
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|(?<=[(;] )|(?<=\$\()|(?<=\s))(?:\.venv/bin/)?rlhi ([^#|)]*)")
_MAKE = re.compile(r"^(?:[A-Z_]+=\S+ )*make ([a-z-]+)", re.MULTILINE)


def blocks(page: Path, language: str) -> Iterator[str]:
    for indent, of, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if of == language:
            yield re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def commands() -> Iterator[tuple[Path, str]]:
    """Every command line of the documents that starts `rlhi`."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from ((page, found) for found in _COMMAND.findall(line.replace("2>&1", "")))


GIVEN = sorted({(page.relative_to(ROOT).as_posix(), command.strip().rstrip('"')) for page, command in commands() if command.strip()})


@pytest.fixture(scope="module")
def whole():
    return parser()


@pytest.mark.parametrize(("page", "command"), GIVEN, ids=[f"{page}: {command}" for page, command in GIVEN])
def test_a_command_of_the_documents_can_be_given(whole, page: str, command: str) -> None:
    words = shlex.split(command.replace("…", "x"), comments=True)
    if "--version" in words or "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            whole.parse_args(words)
    else:
        whole.parse_args(words)


def test_commands_are_found() -> None:
    assert len(GIVEN) > 50
    assert ("README.md", "inspect logs/") in GIVEN


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for page in PAGES for block in blocks(page, "sh") for word in _MAKE.findall(block)}
    assert named - targets == set()


def test_assets_that_are_launched_are_there() -> None:
    known = {spec.key.to_user_string() for spec in definitions.build(profiles.load("sample")).resolve_all_asset_specs()}
    named = {
        name
        for page in PAGES
        for block in blocks(page, "sh")
        for names in re.findall(r"dg launch --assets ([\w,]+)", block)
        for name in names.split(",")
    }
    assert named
    assert named <= known


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of the profile `sample`, made up: a few users and pairs, and the answers behind them."""
    return world(tmp_path_factory.mktemp("made-up") / "data").root


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_works_as_written(page: Path, made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    data = shutil.copytree(made_up, tmp_path / "data")
    reader = guides.Reader(tmp_path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RLHI_DATA": str(data)})
    for block in guides.blocks(page):
        if not block.why_not:
            reader.follow(block)


def test_few_blocks_of_the_guides_are_not_run() -> None:
    found = [block for page in GUIDES for block in guides.blocks(page)]
    assert sum(not block.why_not for block in found) > 2 * sum(bool(block.why_not) for block in found)
    assert sum(block.why_not == guides.OVER_A_RUN for block in found) >= 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```sh\nfalse\n```", "it ends with 1"),
        ("```sh\n.venv/bin/rlhi home --nothing\n```", "unrecognized arguments: --nothing"),
        ("```sh\necho a\n```\n\n```text\nb\n```", "and it prints\na"),
        ("```diff\n+a\n```", "a block of diff that is neither run nor marked"),
        ("```\na\n```", "a block of no language"),
        ("```yaml\nextends: laptop\nseeds: 3\n```", "no profile: .*seeds"),
        ("```yaml\n# a.yaml\nextends: nobody\n```", "no profile: "),
    ],
)
def test_a_guide_that_does_not_work_is_found_out(text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "ROOT", tmp_path)
    (page := tmp_path / "page.md").write_text(f"A page\n\n{text}\n")
    (folder := tmp_path / "reader").mkdir()
    reader = guides.Reader(folder, {"PATH": os.environ["PATH"], "RLHI_DATA": str(folder)})
    *before, last = guides.blocks(page)
    for block in before:
        reader.follow(block)
    with pytest.raises(guides.GuideError, match=f"(?s)page.md:\\d+: .*{told}"):
        reader.follow(last)


def test_marks_names_and_indents_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides, "ROOT", tmp_path)
    (page := tmp_path / "page.md").write_text(
        "<!-- not run: a GPU -->\n```sh\na\n```\n\nSave it as `b.jsonl`:\n\n  ```jsonl\n  {}\n  ```\n\n```text\n# c/d.md\ne\n```\n"
    )
    found = [(block.line, block.text, block.file, block.why_not) for block in guides.blocks(page)]
    assert found == [(2, "a\n", "", "a GPU"), (8, "{}\n", "b.jsonl", ""), (12, "e\n", "c/d.md", "")]


@pytest.mark.slow
def test_the_pair_in_the_readme_is_one_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personas, "PersonaSettings", lambda: profiles.load("sample").personas)
    text = (ROOT / "README.md").read_text()
    shown = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", text.split("## What comes out")[1].split("## Two commands")[0], re.MULTILINE))
    logs = pl.read_parquet(ROOT / "data" / "sample" / "wildchat.parquet")
    conversation = logs.filter(pl.col("conversation_hash") == "9f2ff7ab50465be8a8bd4de760425f7c")
    of_user = logs.join(conversation.select("hashed_ip", "header"), on=["hashed_ip", "header"], how="semi")
    (pair,) = rlhi.pairs(rlhi.read(of_user, salt="s")).filter(pl.col("pair_id").str.starts_with("0956facd")).to_dicts()
    said = {key: value.replace("<br>", "\n") for key, value in shown.items()}
    lines = said["what is known of the user by then"].removesuffix(".").split(". ")
    assert [f"- {line}." for line in lines] == pair["persona"].splitlines()
    assert (said["rejected: the reply"], said["chosen: the reply after it"]) == (pair["rejected"], pair["chosen"])
    assert said["follow-up, by which it was found"] == pair["follow_up"]
    asked = [message["content"] for message in pair["prompt"] if message["role"] == "user"]
    assert said["request"] == " – *(a first reply)* – ".join(asked)


def test_the_logs_of_the_tutorial_come_with_the_project() -> None:
    (rows,) = blocks(ROOT / "docs" / "tutorial" / "2-your-logs.md", "jsonl")
    assert rows == (ROOT / "docs" / "examples" / "support.jsonl").read_text()


def test_no_interval_stands_in_prose() -> None:
    """What was measured is in docs/results, with its date; other pages link there."""
    prose = [page for folder in ("concepts", "decisions", "how-to", "tutorial") for page in (ROOT / "docs" / folder).glob("*.md")]
    code = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
    found = {page.name: re.findall(r"\[[-+−]?[\d.]+, [-+−]?[\d.]+\]", code.sub("", page.read_text())) for page in prose}
    assert {name: intervals for name, intervals in found.items() if intervals} == {}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def literals() -> str:
    """All text of the code, of strings that are put together the parts."""
    found = []
    for file in [*(ROOT / "rlhi_dagster").rglob("*.py"), *(ROOT / "assets").glob("*.py")]:
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        found += [" ".join(node.value.split()) for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(found)


def test_sentences_in_the_troubleshooting_are_said_somewhere() -> None:
    text = (ROOT / "docs" / "how-to" / "troubleshoot.md").read_text()
    quoted = [words for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for words in re.findall("`(.+?)`", row)]
    said = literals() + "\nExtra inputs are not permitted\nExceeded max_retries of"  # pydantic's and Dagster's
    parts = [part.strip() for words in quoted for part in re.split(r"…|\{.*?\}", words)]
    assert [part for part in parts if len(part) > 3 and part not in said] == []
    assert len(quoted) > 15


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "pictures").glob("*.png"))
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size > 200_000] == []


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_what_ci_runs_is_there() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert run[0] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {line.split()[1] for line in run if line.startswith("make ")} <= targets
