"""After forgetting, every byte below the outputs is read; and a list of users is forgotten in one run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import polars as pl
import pyarrow.parquet as pq
import pytest

from rlhi_dagster.base import exports
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.conversations.ingest import user_id
from rlhi_dagster.engines.models import MANIFEST, MARK
from rlhi_dagster.export import Format
from rlhi_dagster.export.selection import Selection
from rlhi_dagster.export.writing import export
from rlhi_dagster.forgetting import tombstones
from rlhi_dagster.forgetting.footprint import footprint, tables
from rlhi_dagster.profiles import load
from rlhi_dagster.training.artefacts import PAIRS
from tests.lakes import ANN, BOB, EVE, World, world

Command = Callable[..., CompletedProcess[str]]
WORDS = 8
TOWN_SALT = "the-town-is-public"


def contents(root: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder as text: names and all; of Parquet what is in it, in whatever way it is packed."""
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        if path.read_bytes()[:4] == b"PAR1":
            text += "\n".join(json.dumps(row, default=str, ensure_ascii=False) for row in pq.read_table(path).to_pylist())
        yield path, f"{path}\n{text}"


def runs(text: str) -> set[str]:
    """The runs of eight words in a text, or all of it if it has fewer."""
    words = text.split()
    return {" ".join(words[start : start + WORDS]) for start in range(max(1, len(words) - WORDS + 1))}


def traces(made: World, who: str) -> set[str]:
    """What only this user wrote or is called by: runs of words, and ids."""
    found = footprint(made.lake, who)
    own, others = found.texts(made.lake)
    rest = [frame.filter(~found.is_theirs(frame.collect_schema())).collect().write_json() for _, frame in tables(made.lake)]
    elsewhere = " ".join(" ".join(text.split()) for text in (*others, *rest))
    said = {run for text in own - others for run in runs(text) if len(run.split()) > 1 and run not in elsewhere}
    ids = {value for kind, values in found.ids.items() for value in values if kind != "prompt" or who == EVE}
    return {each for each in said | ids if len(each) > 3}


def left(root: Path, wanted: set[str]) -> list[tuple[str, str]]:
    found = []
    for path, text in contents(root):
        flat = " ".join(text.replace("\\n", " ").split())
        found += [(str(path.relative_to(root)), each) for each in wanted if each in flat]
    return found


@pytest.fixture
def made(tmp_path: Path) -> World:
    """A whole run's outputs, with what killed runs, workers, trainers and exports leave beside them."""
    found = world(tmp_path / "data")
    (talk,) = (row for row in found.rows["turns"] if row["turn_id"] == "ca2:0")
    talk["prompt"] = long = "Which tulips are early if one plants them late in a cold and shady garden by the sea?"
    for table in ("candidates", "reward_pairs", "preference_pairs", "online_candidates", "online_pairs"):
        for row in found.rows[table]:
            if row.get("user_id") == ANN and row["prompt"][-1]["content"] == "Which tulips are early?":
                row["prompt"][-1]["content"] = long
    found.written()
    root, lake = found.root, found.lake
    said = pl.DataFrame({"user_id": [ANN], "text": [long]})
    leftovers = [
        *(
            "work/chat/requests.parquet",
            "lake/turns/.2023-04.parquet.0a.partial",
            "lake/checkpoints/dpo_rewrites/.pairs.0b.partial",
        ),
        *("responses/chat/town-policy@p1/.segment.0c.partial", "lake/checkpoints/.dpo_rewrites.training/checkpoint-2/rows.parquet"),
    ]
    for name in leftovers:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        said.write_parquet(root / name)
    folder = lake.artefact_path("checkpoints", "dpo_rewrites")
    (folder / MANIFEST).write_text(json.dumps({"method": "dpo", "model": {"name": "m", "revision": "1", "path": "."}}))
    ids = lake.scan("preference_pairs").filter(pl.col("user_id") == ANN).select("pair_id").collect()["pair_id"].to_list()
    pl.DataFrame({"pair_id": [*ids, "another"]}).write_parquet(folder / PAIRS)
    (root / "tensorboard" / "dpo_rewrites" / "training").mkdir(parents=True)
    (root / "tensorboard" / "dpo_rewrites" / "training" / "events.out.tfevents.1").write_bytes(b"\x00loss")
    (lake.artefact_path("report")).mkdir(parents=True)
    (lake.artefact_path("report") / "index.html").write_text(f"<q>{long}</q>")
    if not lake.artefact_path("reasoning_pairs").is_dir():
        lake.write("reasoning_pairs", TABLES["reasoning_pairs"].empty())
    export(root / "pairs.jsonl", Format.TRL, Selection(), lake, load("sample"))
    export(root / "pairs", Format.HUGGINGFACE, Selection(), lake, load("sample"))
    export(root / "all.duckdb", Format.DUCKDB, Selection(), lake, load("sample"))
    return found


@pytest.mark.parametrize("who", [ANN, BOB, EVE])
def test_no_byte_below_the_outputs_is_a_forgotten_users(made: World, who: str, rlhi: Command) -> None:
    wanted = traces(made, who)
    before = {path for path, _ in left(made.root, wanted)}
    assert any(path.startswith("lake/turns") for path in before)
    if who == ANN:
        everywhere = ("work/", "responses/", "lake/checkpoints", "lake/report", "pairs.jsonl", "pairs/", "lake/turns/.")
        assert all(any(path.startswith(place) for path in before) for place in everywhere), before
    done = rlhi(made.root, "forget", who, "--yes")
    assert done.returncode == 0, done.stderr
    assert left(made.root, wanted) == []
    named = [path for path, text in contents(made.root) if who in text]
    assert [path.name for path in named] == [tombstones.FILE]
    assert not [path for path in (made.root / "all.duckdb", made.root / "pairs.jsonl", made.root / "pairs") if path.exists()]


def test_what_was_trained_on_the_user_is_marked_and_one_command_trains_it_again(made: World, rlhi: Command) -> None:
    done = rlhi(made.root, "forget", ANN, "--yes")
    folder = made.lake.artefact_path("checkpoints", "dpo_rewrites")
    assert (folder / MARK).is_file()
    assert pl.read_parquet(folder / PAIRS)["pair_id"].to_list() == ["another"]
    told = done.stdout.splitlines()
    place = next(number for number, line in enumerate(told) if line.startswith("then train again what is marked"))
    assert told[place + 1] == '  DAGSTER_HOME="$(rlhi home)" dg launch --job training --partition-range "$(rlhi recipes)"'
    assert any("--job preference_data" in line for line in told[:place])


def test_a_list_of_users_is_forgotten_in_one_run(made: World, rlhi: Command, tmp_path: Path) -> None:
    names = ["ann@example.org", "Bob Müller"]
    (tmp_path / "users.txt").write_text("\ufeff" + "\r\n".join([ANN, "", *names, f"  {EVE} ", ANN]), encoding="utf-8")
    shown = rlhi(made.root, "forget", "--users", str(tmp_path / "users.txt"))
    assert shown.returncode == 0, shown.stderr
    assert tombstones.read(made.root) == {}
    outside = tmp_path / "given.jsonl"
    export(outside, Format.TRL, Selection(), made.lake, load("sample"))
    done = rlhi(made.root, "forget", "--users", str(tmp_path / "users.txt"), "--yes")
    assert done.returncode == 0, done.stderr
    fingerprints = [user_id(name, "", TOWN_SALT) for name in names]
    assert list(tombstones.read(made.root, TOWN_SALT)) == [ANN, *fingerprints, EVE]
    assert re.findall(r"^user (\w+)$", done.stdout, re.MULTILINE) == [ANN, *fingerprints, EVE]
    assert left(made.root, traces(made, ANN) | traces(made, EVE)) == []
    assert len(made.lake.scan("turns").filter(pl.col("user_id") == BOB).collect()) > 0
    assert not [name for name in names if name in done.stdout + "".join(text for _, text in contents(made.root))]
    assert str(outside) in done.stdout, "what lies elsewhere is named"
    assert outside.is_file()


@pytest.mark.parametrize(("text", "message"), [(b"", "names nobody"), (b"\n \n", "names nobody"), (b"\xff\xfe\xff", "is no text in UTF-8")])
def test_a_list_that_names_nobody_is_told(text: bytes, message: str, made: World, rlhi: Command, tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_bytes(text)
    done = rlhi(made.root, "forget", "--users", str(tmp_path / "users.txt"), "--yes")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_user_and_a_list_are_not_given_together(made: World, rlhi: Command, tmp_path: Path) -> None:
    for arguments in ([], [ANN, "--users", str(tmp_path / "users.txt")]):
        assert "give a user, or with --users a file of users" in rlhi(made.root, "forget", *arguments).stderr
    assert "users.txt" in rlhi(made.root, "forget", "--users", str(tmp_path / "users.txt")).stderr


def test_a_damaged_list_of_exports_is_told(tmp_path: Path) -> None:
    exports.note(tmp_path, tmp_path / "a")
    exports.note(tmp_path, tmp_path / "a")
    assert (tmp_path / exports.FILE).read_text().count("\n") == 1
    assert exports.made(tmp_path) == []
    (tmp_path / "a").touch()
    assert exports.made(tmp_path) == [tmp_path / "a"]
    with (tmp_path / exports.FILE).open("a") as file:
        file.write("{\n")
    with pytest.raises(ValueError, match=r"exports.jsonl, line 2, is no path"):
        exports.made(tmp_path)
