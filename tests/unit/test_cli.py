"""The Dagster instance that ``rlhi home`` makes, the summary, and what ``rlhi`` says where outputs cannot be."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub.errors
import polars as pl
import pytest
from dagster import DagsterInstance

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import SCORES, TABLES, UNMET_WISHES
from rlhi_dagster.cli import dagster_home, main, score_table, summary_command
from rlhi_dagster.report.write import write_report


def said(monkeypatch: pytest.MonkeyPatch, data: str, *arguments: str) -> str:
    monkeypatch.setenv("RLHI_DATA", data)
    monkeypatch.setattr(sys, "argv", ["rlhi", *arguments])
    with pytest.raises(SystemExit) as left:
        main.main()
    return str(left.value.code)


def test_the_instance_of_the_outputs_lets_one_run_at_a_time_hold_the_accelerator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    with DagsterInstance.from_config(str(dagster_home.home())) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert (pools.default_pool_limit, str(pools.pool_granularity)) == (1, "PoolGranularity.RUN")
        assert not instance.telemetry_enabled


def test_a_checkout_without_the_settings_of_its_instance_says_how_to_get_them_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "outputs"))
    profiles.current()  # read while the sample lies where it belongs
    monkeypatch.setattr(profiles, "ROOT", tmp_path)
    shipped = tmp_path / "data" / "dagster_home" / "dagster.yaml"
    expected = f"rlhi: {shipped}, the settings of the Dagster instance, was deleted: git restore {shipped}"
    assert said(monkeypatch, str(tmp_path / "outputs"), "home") == expected


@pytest.mark.parametrize("left", [0, 1, 200])
def test_settings_that_a_full_disk_cut_off_are_written_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: int) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    file = dagster_home.home() / "dagster.yaml"
    whole = file.read_bytes()
    file.write_bytes(whole[:left])
    dagster_home.home()
    assert file.read_bytes() == whole
    own = whole + b"retention:\n  tick:\n    purge_after_days: 7\n"
    file.write_bytes(own)
    dagster_home.home()
    assert file.read_bytes() == own, "what somebody wrote stays"


def test_a_full_disk_leaves_no_half_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(file: Path, content: bytes) -> int:
        with file.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert "No space left on device" in said(patched, str(tmp_path / "data"), "home")
    assert list((tmp_path / "data" / "dagster_home").iterdir()) == []


@pytest.mark.parametrize("content", [b"- a list", b"telemetry: [", b"\xff\xfe"])
def test_settings_that_dagster_cannot_read_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    file = dagster_home.home() / "dagster.yaml"
    file.write_bytes(content)
    told = "is damaged: it is no YAML that Dagster reads; delete it, and `rlhi home` makes it anew"
    assert said(monkeypatch, str(tmp_path / "data"), "home") == f"rlhi: {tmp_path / 'data' / 'dagster_home' / 'dagster.yaml'} {told}"


def test_a_damaged_event_log_is_told_before_dagster_fails_over_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "data"))
    folder = dagster_home.home() / "history" / "runs"
    folder.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(folder / "a.db")) as sound:
        sound.execute("CREATE TABLE events (id)")
    (folder / "new.db").touch()
    dagster_home.home()
    (folder / "b.db").write_bytes(b"SQLite format 3" + b"?" * 4000)
    told = said(monkeypatch, str(tmp_path / "data"), "home")
    assert told.startswith(
        f"rlhi: {tmp_path / 'data' / 'dagster_home' / 'history' / 'runs' / 'b.db'}, a part of Dagster's event log, is damaged"
    )
    assert "launch again: tables and answers stay" in told


@pytest.mark.parametrize(
    ("data", "path", "why"),
    [
        ("/dev/null", "/dev/null/dagster_home", "Not a directory"),
        ("/proc/nope", "/proc/nope", "No such file or directory"),
        ("/proc/nope/data", "/proc/nope", "No such file or directory"),
    ],
)
def test_a_folder_of_outputs_that_cannot_be_made_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, data: str, path: str, why: str
) -> None:
    for variable in ("RLHI_PROFILE", "RLHI_SOURCE"):
        monkeypatch.delenv(variable, raising=False)
    assert said(monkeypatch, data, "home") == f"rlhi: {path}: {why}; outputs go to {data}, which RLHI_DATA can change"


def test_a_summary_ends_with_what_users_complain_about_with_scores_or_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path / "my data"))
    monkeypatch.delenv("RLHI_SOURCE", raising=False)
    monkeypatch.setenv("RLHI_PROFILE", "sample")
    lake = Lake(root=str(tmp_path / "my data" / "lake"))
    row = {"turn_id": "t", "user_id": "u", "month": "2023-04", "wish": "other wishes", "topic": "other topics", "call_ids": []}
    lake.write("unmet_wishes", UNMET_WISHES.conform(pl.DataFrame([dict.fromkeys(UNMET_WISHES.columns) | row], schema=UNMET_WISHES.schema)))
    assert "report" not in main.summary()
    file, compared = write_report(profiles.current(), lake)
    assert (file.name, len(compared)) == ("index.html", 0)
    last = f"what users complain about: file://{tmp_path}/my%20data/lake/report/index.html#wishes"
    assert main.summary().splitlines()[-3:] == ["", f"report: {file}", last]
    assert re.search(r"^unmet_wishes +1$", main.summary(), re.MULTILINE)
    score = {"recipe": "base", "benchmark": "user_eval", "metric": "win_rate", "value": 0.5, "n": 1, "users": 1, "judge": "town"}
    lake.write("scores", SCORES.conform(pl.DataFrame([dict.fromkeys(SCORES.columns) | score], schema=SCORES.schema)), ["base"])
    assert main.summary().splitlines()[0] == "1 requests of 1 users, judge town, 95 % intervals over users"
    assert main.summary().splitlines()[-1] == last


def test_recipes_stand_in_their_order_with_controls_apart_and_a_verdict() -> None:
    def row(recipe: str, metric: str, value: float, low: float | None, high: float | None, judge: str = "town") -> dict[str, Any]:
        known = {"recipe": recipe, "benchmark": "user_eval", "metric": metric, "value": value, "ci_low": low, "ci_high": high}
        return dict.fromkeys(SCORES.columns) | known | {"n": 300, "users": 60, "judge": judge}

    met = "all_preferences_met"
    rows = [row("dpo_rewrites_no_persona", met, 0.1, 0.05, 0.15), row("mine", met, 0.3, 0.2, 0.4), row("base", met, 0.25, 0.2, 0.3)]
    rows += [row("dpo_rewrites", met, 0.4, 0.3, 0.5), row("dpo_rewrites", f"{met}_minus_base", 0.15, 0.05, 0.25)]
    rows += [row("mine", f"{met}_minus_base", 0.05, -0.1, 0.2), row("dpo_rewrites_no_persona", f"{met}_minus_base", -0.15, -0.2, -0.1)]
    rows += [row("mine", "malformed", 0.031, 0.0, 0.1), row("base", "win_rate", 0.5, 0.4, 0.6), row("base", met, 0.9, 0.8, 1.0, judge="zz")]
    shown = score_table.board(pl.DataFrame(rows, schema=SCORES.schema, orient="row"), profiles.load("sample").arms)
    assert shown[0] == "300 requests of 60 users, judge town, 95 % intervals over users"
    assert [" ".join(line.split()) for line in shown[2:]] == [
        "recipe all preferences met minus base",
        "base 0.250 [0.200, 0.300]",
        "dpo_rewrites 0.400 [0.300, 0.500] +0.150 [+0.050, +0.250] better",
        "mine 0.300 [0.200, 0.400] +0.050 [-0.100, +0.200] no difference shown; 3.1% of its replies are broken text",
        "",
        "controls, which lack what a recipe should gain by",
        "dpo_rewrites_no_persona 0.100 [0.050, 0.150] -0.150 [-0.200, -0.100] worse",
        "",
    ]


def test_another_path_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> str:
        raise PermissionError(13, "Permission denied", "/srv/logs/a.parquet")

    monkeypatch.setattr(main.ranges, "months", refused)
    assert said(monkeypatch, "data", "months") == "rlhi: /srv/logs/a.parquet: Permission denied"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (huggingface_hub.errors.OfflineModeIsEnabled("offline mode is enabled"), "cannot be reached (offline mode is enabled)"),
        (httpx.ConnectError("Name or service not known"), "cannot be reached (Name or service not known)"),
        (huggingface_hub.errors.EntryNotFoundError("no x.parquet"), "does not give what it was asked for (no x.parquet)"),
    ],
)
def test_what_the_hub_does_not_give_is_a_sentence(error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> str:
        raise error

    monkeypatch.setattr(main.ranges, "months", refused)
    assert said(monkeypatch, "data", "months").startswith(f"rlhi: the Hugging Face Hub {told}: check the name and the network")


def test_an_error_of_the_program_keeps_its_stack_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main.ranges, "months", lambda *_: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["rlhi", "months"])
    with pytest.raises(ZeroDivisionError):
        main.main()


def test_a_source_on_the_hub_without_a_network_is_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlhi_dagster.cli.main", "label", "hf://datasets/nobody/none", str(tmp_path / "o.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1
    assert done.stderr.startswith("rlhi: the Hugging Face Hub cannot be reached (")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("store", "gc", "--older-than", "1e300"),
        ("store", "gc", "--older-than", "inf"),
        ("persona", "u", "--at", "9999-12-31T23:59:59-23:00"),
    ],
)
def test_numbers_and_times_beyond_all_bounds_are_wrong_arguments(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(monkeypatch, "data", *arguments) == "2"
    assert f"{arguments[-1]} is no " in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m rlhi_dagster.cli.main profile"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} | head -1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# outputs: ")


def test_the_summary_of_preference_data_accounts_for_every_row(tmp_path: Path) -> None:
    lake = Lake(root=str(tmp_path))
    for name, said in (("conversations", {}), ("quarantine", {"reason": "toxic"}), ("superseded", {"cause": "a score"})):
        row = dict.fromkeys(TABLES[name].columns) | {"month": "2023-04"} | said
        lake.write(name, pl.DataFrame([row], schema=TABLES[name].schema, orient="row"), ["2023-04"])
    lines = summary_command.preference_data(lake)
    assert [line.split() for line in lines[:6]] == [
        *(["conversations", "1"], ["quarantine", "1"], ["toxic", "1", "100.0%"], ["superseded", "1"], ["a", "score", "1", "100.0%"]),
        ["explicit_feedback", "not", "materialized"],
    ]
