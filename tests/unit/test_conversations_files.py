"""Which files are read: names with odd characters, links, patterns, folders of systems, and what this project wrote itself."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhi_dagster.base.lake import OURS, Lake
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, detect_kind, files, month_counts
from rlhi_dagster.conversations.sources.files import Found

TALK = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def log(path: Path, name: str | None = None, **more: object) -> Path:
    """A file of one conversation, with the name of the file unless another is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"id": name or path.name, "model": "m", "messages": TALK} | more) + "\n")
    return path


def found(location: Path | str) -> list[str]:
    there = files.look(str(location))
    return [file.removeprefix(there.root) for file in there.files]


def run(location: Path | str, **changes: object) -> Ingested:
    kind = changes.pop("kind", None) or detect_kind(str(location))
    source = SourceSettings(name="s", kind=kind, location=str(location), assumed_start=datetime(2023, 6, 1, tzinfo=UTC), **changes)
    return ingest(source, list(month_counts(source)), "salt")


ODD_NAMES = [
    "a[1].jsonl",
    "a[!1].jsonl",
    "*.jsonl",
    "a?.jsonl",
    "**.jsonl",
    "[a-z].jsonl",
    "a{b}.jsonl",
    "a b.jsonl",
    "ä%20.jsonl",
    "'a\".jsonl",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_existing_path_is_that_path(name: str, tmp_path: Path) -> None:
    for other in ("a1.jsonl", "b.jsonl", "ab.jsonl"):
        log(tmp_path / other)
    path = log(tmp_path / name)
    assert files.find(str(path)) == [str(path)]
    assert run(path).conversations["conversation_id"].to_list() == [name]


@pytest.mark.parametrize("name", ["run [v2]", "a*", "b?c", "[x]"])
def test_an_existing_folder_is_that_folder_also_before_a_pattern(name: str, tmp_path: Path) -> None:
    log(tmp_path / name / "in.jsonl")
    log(tmp_path / name / "deep/er.jsonl")
    for other in ("run v", "ab", "bxc", "x"):
        log(tmp_path / other / "other.jsonl")
    assert found(tmp_path / name) == ["deep/er.jsonl", "in.jsonl"]
    assert found(f"{tmp_path}/{name}/*.jsonl") == ["in.jsonl"]
    assert found(f"{tmp_path}/{name}/**/*.jsonl") == ["deep/er.jsonl", "in.jsonl"]
    assert found(f"{tmp_path}/{name}/*") == ["deep/er.jsonl", "in.jsonl"]


@pytest.mark.parametrize("ending", files.SUFFIXES)
def test_endings_are_read_in_any_case(ending: str, tmp_path: Path) -> None:
    for name in (f"a{ending}", f"b{ending.upper()}", f"c{ending.title()}"):
        (tmp_path / name).touch()
    assert len(found(tmp_path)) == 3


LEFT_OUT = {
    "hidden or of a system": [".hidden.jsonl", "_metadata.parquet", "_SUCCESS", "._a.jsonl"],
    "in folders of temporary files or checkpoints": [
        f"{folder}/a.jsonl"
        for folder in ("_temporary/0", ".ipynb_checkpoints", "tmp", "temp", "checkpoint-100", "checkpoints", "__MACOSX", "Temporary")
    ],
    "of the library datasets": ["dataset_info.json", "state.json", "dataset_dict.json"],
    ".csv": ["a.csv"],
    ".1": ["a.jsonl.1"],
    ".partial": ["a.jsonl.partial"],
    ".bz2": ["a.jsonl.bz2"],
    "without an ending": ["README"],
}  # fmt: skip


def test_what_is_left_out_is_counted_by_cause(tmp_path: Path) -> None:
    log(tmp_path / "a.jsonl")
    log(tmp_path / "temperature/b.jsonl")  # begins like a temporary folder, and is none
    for paths in LEFT_OUT.values():
        for path in paths:
            log(tmp_path / path)
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    there = files.look(str(tmp_path))
    assert [file.removeprefix(there.root) for file in there.files] == ["a.jsonl", "temperature/b.jsonl"]
    assert there.left_out == {cause: len(paths) for cause, paths in LEFT_OUT.items()} | {"links to nothing": 1}
    assert list(there.left_out.values()) == sorted(there.left_out.values(), reverse=True)
    assert there.account.startswith("2 files read; left out: 8 in folders of temporary files or checkpoints, 4 hidden or of a system, ")


@pytest.mark.parametrize("path", [path for paths in LEFT_OUT.values() for path in paths if path.endswith(("jsonl", "json"))])
def test_a_file_that_is_named_itself_is_read_wherever_it_lies(path: str, tmp_path: Path) -> None:
    assert files.find(str(log(tmp_path / path))) == [str(tmp_path / path)]


def test_a_location_within_a_hidden_folder_is_read(tmp_path: Path) -> None:
    log(tmp_path / ".cache/_temporary/a.jsonl")
    assert found(tmp_path / ".cache/_temporary") == ["a.jsonl"]


def test_where_all_is_left_out_the_error_says_what(tmp_path: Path) -> None:
    log(tmp_path / "a.csv")
    (tmp_path / "c.jsonl").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"matches the location .*; what is there was left out: 1 \.csv, 1 links to nothing$"):
        files.find(str(tmp_path))
    with pytest.raises(ValueError, match=r"left out: 1 links to nothing$"):
        files.find(str(tmp_path / "c.jsonl"))
    with pytest.raises(ValueError, match="the location of the source is empty"):
        files.find(" ")


def test_linked_folders_are_entered_once_and_loops_end(tmp_path: Path) -> None:
    log(tmp_path / "elsewhere/deep/a.jsonl")
    root = tmp_path / "logs"
    log(root / "own/b.jsonl")
    (root / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    for loop in ("own/back", "own/up", "own/self", "two"):
        (root / loop).symlink_to(root / "own" if loop.endswith("self") else root, target_is_directory=True)
    everything = ["again/deep/a.jsonl", "own/b.jsonl"]
    for location in (root, f"{root}/", f"{root}/**", f"{root}/**/*.jsonl", f"{root}/**/*", f"{tmp_path}/l*/**/*.jsonl"):
        assert [name.removeprefix("logs/") for name in found(location)] == everything, location
    assert found(f"{root}/**/deep") == ["again/deep/a.jsonl"]
    assert sorted(found(f"{root}/*")) == everything


def test_linked_files_are_read_under_each_name(tmp_path: Path) -> None:
    log(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    there = run(tmp_path)
    assert (len(there.conversations), there.quarantine["reason"].to_list()) == (1, ["duplicate_conversation"])


def test_a_folder_that_a_pattern_matches_is_read_as_a_folder(tmp_path: Path) -> None:
    log(tmp_path / "day1.jsonl")
    log(tmp_path / "day2.jsonl/part-0.jsonl")
    log(tmp_path / "day2.jsonl/_temporary/part-1.jsonl")
    log(tmp_path / "day3/deep/part-0.jsonl")
    log(tmp_path / "night/part-0.jsonl")
    assert found(f"{tmp_path}/day*") == ["day1.jsonl", "day2.jsonl/part-0.jsonl", "day3/deep/part-0.jsonl"]
    assert found(f"{tmp_path}/day[12]*") == ["day1.jsonl", "day2.jsonl/part-0.jsonl"]
    assert found(f"{tmp_path}/**/deep") == ["day3/deep/part-0.jsonl"]
    assert found(f"{tmp_path}/**/part-?.jsonl") == ["day2.jsonl/part-0.jsonl", "day3/deep/part-0.jsonl", "night/part-0.jsonl"]


def test_patterns_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path / "x/a.jsonl")
    log(tmp_path / "b.jsonl")
    monkeypatch.chdir(tmp_path)
    assert files.look("*.jsonl") == Found(("b.jsonl",), "", {})
    assert files.look("**/*.jsonl") == Found(("b.jsonl", "x/a.jsonl"), "", {})
    assert files.look("x") == Found(("x/a.jsonl",), "x/", {})
    assert files.look("./x/*") == Found(("x/a.jsonl",), "x/", {})


NAMES = st.sampled_from(["a", "b", "ab", "deep"])
PATTERNS = st.lists(st.sampled_from(["*", "**", "a*", "?", "[ab]", "deep"]), min_size=1, max_size=4).map("/".join)


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.sets(st.lists(NAMES, max_size=3).map("/".join), min_size=1, max_size=6), pattern=PATTERNS)
def test_patterns_mean_what_they_mean_to_python(paths: set[str], pattern: str, tmp_path: Path) -> None:
    import glob
    import shutil

    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    for number, path in enumerate(sorted(paths)):
        log(root / path / f"a{number}.jsonl")
    matched = glob.glob(f"{root}/{pattern}", recursive=True)  # noqa: PTH207 - what is compared with
    expected = {match for match in matched if os.path.isfile(match)}  # noqa: PTH113
    if not pattern.endswith("**"):
        expected |= {str(file) for match in matched if os.path.isdir(match) for file in Path(match).rglob("*.jsonl")}  # noqa: PTH112
    try:
        assert set(files.find(f"{root}/{pattern}")) == expected
    except ValueError:
        assert not expected


HIVE = {
    "model=gpt-4/a.jsonl": {"assistant": "gpt-4"},
    "model=llama%203%2F8b/a.jsonl": {"assistant": "llama 3/8b"},
    "model=a=b/a.jsonl": {"assistant": "a=b"},
    "year=2023/user=42/a.jsonl": {"user": "42"},
    "user=__HIVE_DEFAULT_PARTITION__/a.jsonl": {"user": None},
    "language=Dutch/day=1/x/a.jsonl": {"language": "Dutch"},
}


@pytest.mark.parametrize("path", HIVE)
@pytest.mark.parametrize("as_parquet", [False, True])
def test_folders_give_their_values_as_columns(path: str, as_parquet: bool, tmp_path: Path) -> None:
    file = log(tmp_path / path, "c", model=None)
    log(tmp_path / "other/b.jsonl", "d", user=42, messages=[TALK[0] | {"content": "other"}, TALK[1]])
    if as_parquet:
        pl.DataFrame([{"id": "c", "messages": TALK}]).write_parquet(file.with_suffix(".parquet"))
        file.unlink()
    found = run(tmp_path, assumed_model="assumed").conversations.sort("conversation_id")
    expected = HIVE[path]
    assert found["assistant"][0] == expected.get("assistant", "assumed")
    assert found["language"][0] == expected.get("language")
    assert (found["user_id"][0] == found["user_id"][1]) is (expected.get("user") == "42")


def test_a_column_of_the_file_is_before_that_of_the_folder_unless_it_is_empty(tmp_path: Path) -> None:
    log(tmp_path / "model=folder/a.jsonl", "a", model="file")
    log(tmp_path / "model=folder/b.jsonl", "b", model=None)
    found = run(tmp_path).conversations.sort("conversation_id")
    assert found["assistant"].to_list() == ["file", "folder"]


PAIR = {
    "trl": {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": [TALK[1]], "pair_id": "p"},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt"}, "rejected": {"from": "gpt"}},
    "published": {"messages": TALK, "prompt": "a", "chosen": TALK, "rejected": TALK, "score_chosen": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("as_parquet", [False, True])
def test_preference_pairs_beside_logs_are_no_logs(name: str, as_parquet: bool, tmp_path: Path) -> None:
    log(tmp_path / "a.jsonl")
    if as_parquet:
        pl.DataFrame([PAIR[name]] * 3).write_parquet(tmp_path / "pairs.parquet")
    else:
        (tmp_path / "pairs.jsonl").write_text((json.dumps(PAIR[name]) + "\n") * 3)
    found = run(tmp_path)
    assert found.conversations["conversation_id"].to_list() == ["a.jsonl"]
    assert found.superseded["cause"].to_list() == ["a preference pair, and no log"] * 3
    assert len(found.quarantine) == 0


def test_preference_pairs_alone_are_of_no_layout(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR["sharegpt"]) + "\n")
    with pytest.raises(ValueError, match="has objects with chosen, conversations, rejected"):
        detect_kind(str(tmp_path))


def test_tables_of_the_lake_are_never_input(tmp_path: Path) -> None:
    log(tmp_path / "a.jsonl")
    table = TABLES["quarantine"]
    Lake(root=str(tmp_path / "lake")).write("quarantine", table.empty(), ["2023-06"])
    table.empty().write_parquet(tmp_path / "mine.parquet", metadata=OURS)
    table.empty().write_parquet(tmp_path / "theirs.parquet", metadata={"written_by": "others"})
    there = files.look(str(tmp_path))
    assert [file.removeprefix(there.root) for file in there.files] == ["a.jsonl", "theirs.parquet"]
    assert there.left_out == {"written by this project": 2}
    with pytest.raises(ValueError, match="left out: 1 written by this project"):
        files.find(str(tmp_path / "mine.parquet"))


def test_kinds_of_data_sets_may_lie_beside_each_other(tmp_path: Path) -> None:
    log(tmp_path / "a.jsonl", "own", user="u")
    wildchat = {
        "conversation_hash": "w",
        "conversation": TALK,
        "model": "m",
        "hashed_ip": "ip",
        "header": {"user-agent": "x"},
        "toxic": False,
    }
    lmsys = {"conversation_id": "l", "conversation": TALK, "model": "m", "openai_moderation": [{"flagged": True}]}
    for as_parquet in (False, True):
        for name, row in (("b", wildchat), ("c", lmsys)):
            if as_parquet:
                (tmp_path / f"{name}.jsonl").unlink()
                pl.DataFrame([row]).write_parquet(tmp_path / f"{name}.parquet")
            else:
                (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
        for kind in (SourceKind.MESSAGES, SourceKind.WILDCHAT, SourceKind.LMSYS):
            found = run(tmp_path, kind=kind)
            assert found.conversations["conversation_id"].sort().to_list() == ["own", "w"]
            assert found.quarantine["reason"].to_list() == ["toxic"]
            assert found.conversations.filter(pl.col("conversation_id") == "w")["address_id"].null_count() == 0


def test_many_empty_files_hide_no_layout(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:03}.jsonl").touch()
    log(tmp_path / "z.jsonl")
    assert detect_kind(str(tmp_path)) is SourceKind.MESSAGES
    (tmp_path / "z.jsonl").unlink()
    with pytest.raises(ValueError, match=r"000\.jsonl is empty; .*; and 20 more$"):
        detect_kind(str(tmp_path))
