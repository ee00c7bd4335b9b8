"""The same dialogues in every layout: ``rlhi inspect`` tells what is there, and ``rlhi label`` labels every follow-up alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.engines.embedding import MiniLM
from tests.in_layouts import WITHOUT_TIMES, WITHOUT_USERS, dialogues, write
from tests.snapshot import vector
from tests.sources import read

Rlhi = Callable[..., CompletedProcess[str]]
Dialogues = dict[str, list[tuple[str, str]]]
Labels = dict[tuple[str, int], tuple[bool, str, float]]

SAID = dialogues()
ODD = (
    "  indented\n\n\tcode()\n", "```python\nprint('<x>')\n```\nexplain this", "Ünïcödé 漢字 \u200b end", "yes", "yes", "a\r\nb", "12",
    "true", "null", "None", '"quoted"', "[1, 2]", '{"a": [1, 2]}', "# Title\nand a heading", "[image] is a word",
    "Human: hi\nAssistant: no", "• one\n• two",
    "<details><summary>x</summary>y</details>", "<think>hm</think>real words", "/clear all of it now", "x" * 3000,
)  # fmt: skip
"""What looks like something else, or could."""
USERS = {each.name: each.user for each in SAID}
FOLLOW_UPS = {(each.name, 2 * number) for each in SAID for number in range(1, len(each.exchanges))}


def labelled(rlhi: Rlhi, kind: SourceKind, folder: Path) -> Labels:
    """Whether each follow-up is unanswered, its label and the label's probability, by dialogue and message."""
    out = folder / "labels.parquet"
    done = rlhi(folder, "label", str(write(kind, folder / "logs", SAID)), str(out))
    assert done.returncode == 0, done.stderr
    return {(name, index): (last, label, p) for name, index, last, label, p in pl.read_parquet(out).iter_rows()}


@pytest.fixture
def plain(rlhi: Rlhi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labels:
    monkeypatch.setattr(MiniLM, "embed", lambda _, texts: np.array([vector(text) for text in texts], np.float32).reshape(-1, 384))
    return labelled(rlhi, SourceKind.MESSAGES, tmp_path / "plain")


@pytest.mark.parametrize("kind", SourceKind)
def test_follow_ups_have_the_same_labels(kind: SourceKind, plain: Labels, rlhi: Rlhi, tmp_path: Path) -> None:
    assert plain.keys() == FOLLOW_UPS
    assert len({label for _, label, _ in plain.values()}) > 1
    assert labelled(rlhi, kind, tmp_path / "other") == plain


@pytest.mark.parametrize("kind", SourceKind)
def test_inspection_tells_what_is_there(kind: SourceKind, rlhi: Rlhi, tmp_path: Path) -> None:
    done = rlhi(tmp_path, "inspect", str(write(kind, tmp_path / "logs", SAID)))
    assert done.returncode == 0, done.stderr
    told = {line[:14].strip(): line[14:] for line in done.stdout.splitlines() if line[:1].isalpha()}
    assert told["layout"].endswith(f"({kind})")
    assert told["conversations"].startswith(f"{len(SAID)} accepted, 0 rows quarantined, ")
    people = len(SAID) if kind in WITHOUT_USERS else len({each.user for each in SAID})
    assert told["users"].startswith(f"{people}; {0 if kind in WITHOUT_USERS else len(SAID)} rows name one")
    assert told["months"] == (f"{len(SAID)} conversations without a time" if kind in WITHOUT_TIMES else "2023-04")
    assert told["models"] == "model-0 6, model-1 6"
    assert told["languages"] == "en 12"
    assert told["feedback"] == "none"


@pytest.mark.parametrize("kind", SourceKind)
def test_every_word_is_read_with_its_user_and_time(kind: SourceKind, tmp_path: Path) -> None:
    found = read(write(kind, tmp_path, SAID))
    rows = {row["conversation_id"]: row for row in found.conversations.iter_rows(named=True)}
    assert {name: [(each["role"], each["content"]) for each in row["messages"]] for name, row in rows.items()} == {
        each.name: [(role, text) for role, text, _ in each.told()] for each in SAID
    }
    if kind not in WITHOUT_USERS:
        assert len({(row["user_id"], USERS[name]) for name, row in rows.items()}) == len(set(USERS.values()))
    if kind not in WITHOUT_TIMES:
        assert {name: row["started_at"] for name, row in rows.items()} == {each.name: each.start for each in SAID}


def test_what_is_said_stays_as_it_is_said(tmp_path: Path) -> None:
    said = []
    for n, each in enumerate(dialogues(users=len(ODD) // 2 + 1)):
        texts = [(ODD[(n + k) % len(ODD)], ODD[(5 * n + k + 3) % len(ODD)]) for k in range(len(each.exchanges))]
        odd = [replace(one, asked=asked, answered=answered) for one, (asked, answered) in zip(each.exchanges, texts, strict=True)]
        said.append(replace(each, exchanges=tuple(odd)))
    plain = read(write(SourceKind.MESSAGES, tmp_path / "plain", said)).dialogues
    assert {text for told in plain.values() for role, text in told if role == "u"} == set(ODD)
    assert {kind: changed for kind in SourceKind if (changed := _changed(read(write(kind, tmp_path / kind, said)).dialogues, plain))} == {}


def _changed(dialogues: Dialogues, plain: Dialogues) -> list[tuple[object, object]]:
    """The first difference in each dialogue."""
    both = ((plain[name], dialogues.get(name, [])) for name in plain)
    return [next(pair for pair in zip_longest(*each) if pair[0] != pair[1]) for each in both if each[0] != each[1]]
