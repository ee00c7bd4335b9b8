"""What the documents show of the code: tables that are made of it, and examples that are run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import yaml

from rlhi_dagster import profiles
from rlhi_dagster.cli import inspect_command
from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.inspection import inspect
from rlhi_dagster.conversations.sources import SourceSettings, cells, detect_kind, month_counts
from rlhi_dagster.conversations.sources.assembly import BRANCH, CONTINUED, PART, SAME
from rlhi_dagster.conversations.sources.records import FeedbackKind, Giver
from tests.documents import PARTS, ROOT, renewed
from tests.reference import PAGES

LOGS = (ROOT / "docs" / "reference" / "logs.md").read_text()
OPENING, GUIDE = "An example", "A layout of your own"
NOW = datetime(2026, 12, 1, tzinfo=UTC)


class Block(NamedTuple):
    """A block of code under a heading."""

    heading: str
    language: str
    text: str


def _blocks() -> Iterator[Block]:
    heading = ""
    for found in re.finditer(r"^#+ ([^\n]+)$|^```(\w+)\n(.*?)^```$", LOGS, re.MULTILINE | re.DOTALL):
        heading = found[1] or heading
        if found[2]:
            yield Block(heading, found[2], found[3])


BLOCKS = list(_blocks())
EXAMPLES = [
    (block.heading, block.text, after.text)
    for block, after in pairwise(BLOCKS)
    if block.language == "jsonl" and after.language == "text" and block.heading not in (OPENING, GUIDE)
]


def of(heading: str, language: str) -> list[str]:
    return [block.text for block in BLOCKS if (block.heading, block.language) == (heading, language)]


def table(heading: str) -> list[list[str]]:
    """The cells of the tables under a heading."""
    section = LOGS.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in section.splitlines() if line.startswith("| ")]


def told(found: Ingested, at: str) -> str:
    """What became of the rows of a file, as the document shows it."""
    lines = []
    for conversation in found.conversations.sort("conversation_id").iter_rows(named=True):
        lines.append(conversation["conversation_id"])
        for message in conversation["messages"]:
            words = [line for line in message["content"].splitlines() if line]
            lines.append(f"  {message['role']}: " + f"\n{' ' * (len(message['role']) + 4)}".join(words))
            on_it = found.explicit_feedback.filter(reply_id=message["message_id"]).sort("kind", descending=True)
            lines += [f"    {_feedback(each)}" for each in on_it.iter_rows(named=True)]
    others = pl.concat([found.quarantine.select("row_id", why=pl.format("quarantined: {}", "reason")), _superseded(found)]).sort("row_id")
    lines += [f"{row_id.replace(at, 'log.jsonl')} {why}" for row_id, why in others.iter_rows()]
    return "\n".join(lines) + "\n"


def _superseded(found: Ingested) -> pl.DataFrame:
    return found.superseded.select("row_id", why=pl.format("superseded: {}", "cause"))


def _feedback(given: dict[str, Any]) -> str:
    value = "" if given["value"] is None else f" {given['value']:g}"
    return f"{given['kind']}{value} by {given['giver']}" + (f": {given['text']}" if given["text"] else "")


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_are_made_from_the_code_are_up_to_date(name: str) -> None:
    file, _ = PARTS[name]
    assert (ROOT / file).read_text() == renewed(name), "python -m tests.documents renews it"


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_are_made_from_the_code_are_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == PAGES[name](), "python -m tests.documents renews it"


def test_the_first_example_says_what_inspect_says_and_its_profile_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("support.jsonl").write_text(of(OPENING, "jsonl")[0])
    (said,) = of(OPENING, "text")
    assert inspect_command.text(inspect("support.jsonl", lambda texts: ["en"] * len(texts), now=NOW)) + "\n" == said
    Path("mine.yaml").write_text(said[said.index("extends:") :])
    profile = profiles.load("mine.yaml")
    assert profile.source.location == "support.jsonl"
    assert profiles.source_months(profile) == (["2026-10"], 0)


@pytest.mark.parametrize(("heading", "rows", "said"), EXAMPLES, ids=[heading for heading, _, _ in EXAMPLES])
def test_what_the_examples_show_is_what_becomes_of_them(heading: str, rows: str, said: str, tmp_path: Path) -> None:
    (file := tmp_path / "log.jsonl").write_text(rows)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    settings = SourceSettings(name="s", kind=detect_kind(str(file)), location=str(file), assumed_start=start, assumed_model="unknown")
    assert told(ingest(settings, list(month_counts(settings, now=NOW)), "salt", now=NOW), file.name) == said, heading


def test_the_settings_that_are_shown_are_settings() -> None:
    usual = {"name": "s", "kind": "messages", "location": "logs", "assumed_start": NOW}
    shown = [yaml.safe_load(block.text)["source"] for block in BLOCKS if block.language == "yaml"]
    assert {name for each in shown for name in SourceSettings.model_validate(usual | each).model_fields_set} > {"fields", "thumbs"}


def test_every_way_of_putting_conversations_together_has_an_example() -> None:
    ways = re.findall(r"^### (.+)$", LOGS.split("## How conversations are put together\n")[1].split("\n## ")[0], re.MULTILINE)
    assert set(ways) <= {heading for heading, _, _ in EXAMPLES}


def test_times_are_read_as_the_table_says() -> None:
    def read(text: str) -> str:
        try:
            moment = cells.time(float(text) if re.fullmatch(r"[\d.]{10,}", text) and text.count(".") < 2 else text)
        except cells.MistypedError:
            return "no time"
        return f"{moment:%Y-%m-%d %H:%M}"

    head, *rows = table("Times and months")
    assert head == ["in the log", "is read as"]
    assert {text: read(text) for spelt, _ in rows for text in re.findall("`(.+?)`", spelt)} == {
        text: meant for spelt, meant in rows for text in re.findall("`(.+?)`", spelt)
    }


def test_every_reason_cause_kind_and_giver_is_explained() -> None:
    rows = table("What becomes of a row")
    assert [row[0].strip("`") for row in rows if row[0].strip("`") in set(Reason)] == [reason.value for reason in Reason]
    assert {CONTINUED, PART, BRANCH, SAME} <= {row[0] for row in rows}
    assert [row[0].strip("`") for row in table("Explicit feedback")[1:]] == [kind.value for kind in FeedbackKind]
    assert all(f"`{giver}`" in LOGS for giver in Giver)


def test_a_layout_is_added_as_the_guide_says(tmp_path: Path) -> None:
    rows = tmp_path / "helpdesk.jsonl"
    rows.write_text(of(GUIDE, "jsonl")[0])
    package = shutil.copytree(ROOT / "rlhi_dagster", tmp_path / "rlhi_dagster", ignore=shutil.ignore_patterns("__pycache__"))
    sources = package / "conversations" / "sources"
    (sources / "layouts" / "helpdesk.py").write_text(of(GUIDE, "python")[0])
    for file, change in zip((sources / "settings.py", sources / "layouts" / "__init__.py"), of(GUIDE, "diff"), strict=True):
        for added, before in re.findall(r"^\+(.*\n) (.*\n)", change, re.MULTILINE):
            head, found, rest = file.read_text().partition(f"\n{before}")
            assert found, f"{file.name} has no line {before}"
            file.write_text(f"{head}\n{added}{before}{rest}")
    done = subprocess.run(
        [sys.executable, "-m", "rlhi_dagster.cli.main", "inspect", rows.name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, of(GUIDE, "text")[0]), done.stderr[-2000:]
