"""``rlhi``: its list of commands, its examples, how fast it is there, and how it ends when told to stop."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import rlhi_dagster
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import PREFERENCE_PAIRS, TURNS, USERS
from rlhi_dagster.cli import main, why_command
from rlhi_dagster.cli.commands import COMMANDS
from rlhi_dagster.feedback.labels import offline
from tests.unit.test_cli_persona import LINES, TURN_ROWS, USER_ROWS, fill


def told(parser: argparse.ArgumentParser) -> dict[str, str | None]:
    """The list of commands."""
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {choice.dest: choice.help for choice in commands._choices_actions}


def test_the_list_says_what_the_commands_say_themselves() -> None:
    assert told(main.parser()) == told(main.parser("")) == {name: command.told for name, command in COMMANDS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_takes(name: str) -> None:
    words = shlex.split(COMMANDS[name].example)
    within = [[part.split("$(rlhi ")[1].rstrip(")")] for part in words if "$(rlhi " in part]
    given = [words[1:]] if words[0] == "rlhi" else within
    assert given
    for arguments in given:
        assert main.parser(name).parse_args(arguments).command == name
    (commands,) = [action for action in main.parser(name)._actions if isinstance(action, argparse._SubParsersAction)]
    assert str(commands.choices[name].epilog).endswith(f"Example: {COMMANDS[name].example}")


LIGHT = ("label", "inspect", "why", "export", "example", "alpaca-lc")
"""Commands whose arguments are known without the project's libraries."""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in LIGHT)])
def test_what_needs_nothing_of_a_run_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['rlhi', *sys.argv[1:]]\n"
        "from rlhi_dagster.cli import main\n"
        "heavy = ('polars', 'dagster', 'numpy', 'pydantic', 'torch', 'rlhi_dagster.profiles')\n"
        "try: main.main()\n"
        "finally: print('loaded', [name for name in heavy if type(sys.modules.get(name)) is type(sys)])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "loaded []"), done.stderr


def test_the_version_is_the_projects(rlhi, tmp_path: Path) -> None:
    assert rlhi(tmp_path, "--version").stdout == f"rlhi {rlhi_dagster.__version__}\n"


def test_told_to_stop_it_says_so_without_a_traceback(rlhi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", stopped)
    done = rlhi(tmp_path, "home")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "rlhi: stopped\n")


def test_a_profile_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    env = os.environ | {"RLHI_PROFILE": "nope", "RLHI_DATA": str(tmp_path)}
    command = [sys.executable, "-m", "rlhi_dagster.cli.main", "home"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rlhi: RLHI_PROFILE=nope: no such profile; there are laptop, ")


def lake_of(folder: Path) -> Lake:
    """Users, their lines and messages, and three pairs, of which two are kept."""
    lake = Lake(root=str(folder / "lake"))
    lake.write("users", USERS.conform(USER_ROWS))
    lake.write("personas", LINES)
    lake.write("turns", TURNS.conform(TURN_ROWS), ["2024-05"])
    empty: dict[str, Any] = {"drop_reasons": [], "prompt": [], "call_ids": []}
    pairs = [{"pair_id": each, "is_kept": each != "dropped", **empty} for each in ("aa", "bb", "dropped")]
    lake.write("preference_pairs", fill(PREFERENCE_PAIRS, pairs))
    return lake


def test_any_pair_is_a_kept_one(tmp_path: Path) -> None:
    kept = lake_of(tmp_path).scan("preference_pairs").filter("is_kept")
    assert {why_command.any_of(kept, "pair_id") for _ in range(60)} == {"aa", "bb"}
    with pytest.raises(ValueError, match="no pair_id to draw from"):
        why_command.any_of(kept.filter(pl.lit(value=False)), "pair_id")


def test_why_wants_an_id_or_any(rlhi, tmp_path: Path) -> None:
    lake_of(tmp_path)
    for arguments in ([], ["aa", "--random"]):
        done = rlhi(tmp_path, "why", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "give the id of a pair, a reply or a message, or --random" in done.stderr
    drawn = rlhi(tmp_path, "why", "--random").stderr
    assert re.match(r"rlhi: pair (aa|bb) is in preference_pairs but in no table of its source", drawn), drawn


def test_any_user_is_one_of_whom_something_is_known(rlhi, tmp_path: Path) -> None:
    lake_of(tmp_path)
    assert rlhi(tmp_path, "persona", "--random").stdout.startswith("user a1f0 at ")
    lines = json.loads(rlhi(tmp_path, "persona", "a1f0", "--json").stdout)
    assert [(line["line"], line["is_over"]) for line in lines] == [("Prefers long answers.", False), ("Be kind.", False)]
    assert "--random for any" in rlhi(tmp_path, "persona").stderr


def test_labels_with_texts(tmp_path: Path) -> None:
    said = {"turn_id": "c:2", "conversation_id": "c", "follow_up": "again", "previous_prompt": "a?", "previous_reply": "b"}
    texts = offline.texts(pl.DataFrame([said]))
    assert texts.rows() == [("c", 2, "a?", "b", "again")]
    label = {"conversation_hash": "c", "message_index": 2, "is_unanswered": False, "label": "positive", "probability": 0.9}
    labels = pl.DataFrame([label])
    offline.write(labels.join(texts, on=["conversation_hash", "message_index"]), tmp_path / "out.csv")
    assert pl.read_csv(tmp_path / "out.csv").columns == [*label, "request", "reply", "follow_up"]
    offline.write(labels, tmp_path / "out.csv")
    assert pl.read_csv(tmp_path / "out.csv").columns == [*label]
