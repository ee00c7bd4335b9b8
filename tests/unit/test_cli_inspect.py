"""``rlhi inspect``: the section for a profile reads the same rows, no text of a message is shown, errors are sentences."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.cli import main
from rlhi_dagster.conversations import inspection
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import month_counts

Row = dict[str, Any]
SECRET = "tulips and hyacinths"
MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Path | str], str]:
    for name in ("DAGSTER_HOME", "RLHI_PROFILE", "RLHI_SOURCE", "RLHI_SALT", "RLHI_DATA"):
        monkeypatch.delenv(name, raising=False)

    def inspected(location: Path | str) -> str:
        monkeypatch.setattr(sys, "argv", ["rlhi", "inspect", str(location)])
        main.main()
        return capsys.readouterr().out

    return inspected


def talk(*texts: str) -> list[Row]:
    return [{"role": "user" if number % 2 == 0 else "assistant", "content": f"{SECRET} {text}"} for number, text in enumerate(texts)]


def row(number: int, **changes: object) -> Row:
    start = (MOMENT + timedelta(days=20 * number)).isoformat()
    return {"id": f"c{number}", "user": f"u{number % 2}", "created": start, "model": "m", "messages": talk(str(number), "b")} | changes


def growing() -> list[Row]:
    return [{"user": "u", "model": "m", "created": 1_700_000_000 + n, "messages": talk(*"abcdef"[: 2 * n])} for n in (1, 2, 3)]


def wildchat(number: int) -> Row:
    return {"conversation_hash": f"h{number}", "model": "m", "timestamp": MOMENT, "conversation": talk(str(number), "b"), "hashed_ip": "x"}


FAULTY = [
    *(row(0), SECRET, [SECRET], {SECRET: SECRET}, row(1, messages=SECRET), row(2, messages=[SECRET]), row(3, created=SECRET)),
    *(row(4, toxic=SECRET), row(5, user=[SECRET]), row(6, messages=[{"role": SECRET, "content": SECRET}]), row(7, toxic=True)),
]
LOGS: dict[str, Callable[[Path], object]] = {
    "lines": lambda folder: lines(folder / "a.jsonl", *map(row, range(4))),
    "lines without models and times": lambda folder: lines(folder / "a.jsonl", *(row(n, model=None, created=None) for n in range(3))),
    "some without a model": lambda folder: lines(folder / "a.jsonl", row(0), row(1, model="nan")),
    "requests that grow": lambda folder: lines(folder / "a.jsonl", *growing()),
    "compressed, with damage": lambda folder: damaged(folder),
    "Parquet": lambda folder: pl.DataFrame(list(map(row, range(5)))).write_parquet(folder / "a.parquet"),
    "WildChat": lambda folder: pl.DataFrame(list(map(wildchat, range(3)))).write_parquet(folder / "a.parquet"),
    "folders of values": lambda folder: [lines(folder / f"model=m{n}/a.jsonl", row(n, model=None)) for n in range(2)],
    "rows of all kinds of faults": lambda folder: lines(folder / "a.jsonl", *FAULTY),
}


def lines(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))


def damaged(folder: Path) -> None:
    content = gzip.compress("".join(json.dumps(row(n)) + "\n" for n in range(300)).encode())
    (folder / "a.jsonl.gz").write_bytes(content[:-40])


def run(profile: profiles.Profile) -> Ingested:
    return ingest(profile.source, list(month_counts(profile.source)), "salt")


@pytest.mark.parametrize("name", LOGS)
def test_the_section_for_a_profile_loads_and_reads_the_same_rows(name: str, said: Callable[[Path | str], str], tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] log"
    folder.mkdir()
    LOGS[name](folder)
    text = said(folder)
    (tmp_path / "mine.yaml").write_text(text.split("for a profile:")[1])
    profile = profiles.load(str(tmp_path / "mine.yaml"))
    found = run(profile)
    counts = {
        key: int(number.replace(",", "")) for number, key in re.findall(r"([\d,]+) (accepted|rows quarantined|rows superseded)", text)
    }
    assert list(counts.values()) == [len(found.conversations), len(found.quarantine), len(found.superseded)]
    assert re.search(rf"^rows +{sum(counts.values()):,}; all of them looked at$", text, re.MULTILINE)
    assert found.conversations["month"].min() == profile.first_month
    reasons = {reason: int(number) for number, reason in re.findall(r"^ +(\d+)  ([a-z_]+) +such as", text, re.MULTILINE)}
    assert reasons == dict(found.quarantine.group_by("reason").len().iter_rows())
    users, named = re.findall(r"^users +([\d,]+); ([\d,]+) rows name one", text, re.MULTILINE)[0]
    assert int(users) == found.conversations["user_id"].n_unique()
    assert named


@pytest.mark.parametrize("name", [name for name in LOGS if name != "rows of all kinds of faults"])
def test_no_text_of_a_message_is_shown(name: str, said: Callable[[Path | str], str], tmp_path: Path) -> None:
    LOGS[name](tmp_path)
    assert SECRET not in said(tmp_path)


def test_nothing_of_a_faulty_value_is_shown(said: Callable[[Path | str], str], tmp_path: Path) -> None:
    LOGS["rows of all kinds of faults"](tmp_path)
    text = said(tmp_path)
    assert SECRET not in text.replace(f"not read      {SECRET}", "").replace(f", {SECRET}", "")  # a name of a column
    assert "2 accepted" not in text
    assert set(re.findall(r"^ +[\d,]+  ([a-z_]+) +such as a\.jsonl#\d+: ", text, re.MULTILINE)) == {
        "mistyped_field",
        "missing_field",
        "toxic",
        "unknown_role",
    }


def test_what_is_found_is_told(said: Callable[[Path | str], str], tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", *(row(number, toxic=number == 3, login_date="2023-01-01", plan="pro") for number in range(5)))
    (tmp_path / "notes.txt").touch()
    text = said(tmp_path)
    for line in (
        r"layout        .*\(messages\)",
        r"files         1 file read; left out: 1 \.txt",
        r"rows          5; all of them looked at",
        r"conversations 4 accepted, 1 rows quarantined, 0 rows superseded",
        r"columns read  id, user, created, model, messages, toxic",
        r"not read      login_date, plan",
        r"users         2; 5 rows name one",
        r"months        2023-11 to 2024-02 \(3 with conversations\)",
        r"models        m 4",
        r"feedback      none",
        r"These columns look like a time or a user and are not read: login_date\. .*",
        r"         1  toxic                   such as a\.jsonl#3: flagged by the source",
        r'first_month: "2023-11"',
    ):
        assert re.search(rf"^{line}$", text, re.MULTILINE), line


def test_a_large_source_is_looked_at_in_part_and_that_is_said(
    said: Callable[[Path | str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection.inspect, "__kwdefaults__", {"at_most": 10, "now": None})
    for number in range(3):
        lines(tmp_path / f"{number}.jsonl", *(row(n, id=f"{number}-{n}", created=MOMENT.isoformat()) for n in range(50)))
    text = said(tmp_path)
    assert re.search(r"^rows          150; 12 of them looked at, on which the rest is based$", text, re.MULTILINE)
    assert re.search(r'^first_month: "2023-11" +# of the rows that were looked at$', text, re.MULTILINE)
    (tmp_path / "mine.yaml").write_text(text.split("for a profile:")[1])
    assert sum(run(profiles.load(str(tmp_path / "mine.yaml"))).rows_in.values()) == 150


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no file that ends in"),
        (b"", "a.jsonl is empty"),
        (b"nonsense\n", "a.jsonl cannot be read: line 1: "),
        (b"BZh91AY&SY", "a.jsonl cannot be read: it is compressed with bzip2"),
        (b'{"text": "x"}', "a.jsonl has objects with text. Looked for "),
        (b"3\n4\n", "a.jsonl has no objects but values such as int"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    content: bytes | None, complaint: str, said: Callable[[Path | str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        said(tmp_path)
    assert complaint in f"{stopped.value}{capsys.readouterr().err}"
    assert "Traceback" not in f"{stopped.value}"


def test_a_pattern_in_the_home_folder_means_the_same_in_a_profile(
    said: Callable[[Path | str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lines(tmp_path / "logs/a.jsonl", *map(row, range(3)))
    (tmp_path / "mine.yaml").write_text(said("~/logs/*.jsonl").split("for a profile:")[1])
    assert profiles.files.absolute(profiles.load(str(tmp_path / "mine.yaml")).source.location) == f"{tmp_path}/logs/*.jsonl"


def test_a_relative_location_counts_from_the_working_folder_if_something_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "run [v2]/a.jsonl", row(0))
    for location in ("run [v2]", "run [v2]/*.jsonl", "*/a.jsonl", "run [v2]/a.jsonl", "**/a.jsonl"):
        assert profiles.files.absolute(location) == str(tmp_path / location)
    assert profiles.files.absolute("data/*.jsonl") == str(profiles.ROOT / "data/*.jsonl")
    assert profiles.files.absolute("hf://datasets/a/b") == "hf://datasets/a/b"
