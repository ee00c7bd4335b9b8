"""Rows in which one field is something else: read, or refused with the name of the field, and never anything else."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from rlhi_dagster.conversations.sources import SourceKind, SourceSettings
from rlhi_dagster.conversations.sources.assembly import assemble
from rlhi_dagster.conversations.sources.cells import MistypedError
from rlhi_dagster.conversations.sources.layouts import LAYOUTS
from rlhi_dagster.conversations.sources.records import Assembly, Place
from tests.sources import START
from tests.unit import test_layouts_arena as arena
from tests.unit import test_layouts_chatgpt as chatgpt
from tests.unit import test_layouts_claude_code as claude_code
from tests.unit import test_layouts_codex as codex
from tests.unit import test_layouts_oasst as oasst

ROWS: dict[SourceKind, list[dict[str, Any]]] = {
    SourceKind.ARENA: [
        arena.battle("model_b"),
        {"id": 1, "model_a": "x", "model_b": "y", "prompt": ["a"], "response_a": ["b"], "response_b": ["c"], "winner_model_a": 1},
    ],
    SourceKind.OASST: [
        {"message_tree_id": "p1", "prompt": oasst.tree(*oasst.MESSAGES[:3])},
        {"message_tree_id": "p1", **oasst.MESSAGES[2]},
    ],
    SourceKind.CHATGPT: [
        chatgpt.conversation(*chatgpt.TALK, current="a1"),
        {"id": "a1", "conversation_id": "c1", "rating": "thumbs_up", "content": '{"tags": ["x"]}', "create_time": 1_790_000_000.0},
        chatgpt.comparison("new"),
    ],
    SourceKind.CLAUDE_CODE: [
        claude_code.reply("a1", "u1", claude_code.tool("Bash"), "Done."),
        claude_code.user("r1", "a1", [claude_code.result()]),
        claude_code.line("q1", "r1", "attachment", attachment={"type": "queued_command", "prompt": "x"}),
    ],
    SourceKind.CODEX: [codex.line("session_meta", codex.META), codex.item("user", "a"), codex.said("assistant", "b", phase="final_answer")],
}
ODD = (None, "", "x", 3, 1.5, float("nan"), True, [], {}, [None], ["x"], [[]], {"id": []}, "{}", "[1]", [{"type": None}], 10**30, b"\xff")


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is anything within a value."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*before, name)
        yield from places(inner, (*before, name))


def mutated(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for *way, last in places(row):
        for odd in (*ODD, places):
            changed = inner = copy.deepcopy(row)
            for step in way:
                inner = inner[step]
            if odd is places:
                del inner[last]
            else:
                inner[last] = odd
            yield changed


@pytest.mark.parametrize("kind", ROWS)
def test_no_field_breaks_a_row(kind: SourceKind) -> None:
    layout = LAYOUTS[kind]
    settings = SourceSettings(name="s", kind=kind, location="x", assumed_start=START)
    place = Place("folder/a.jsonl", 1)
    refused = set()
    for changed in (changed for row in ROWS[kind] for changed in mutated(row)):
        layout.fits(changed)
        try:
            record = layout.read(changed, settings, place)
        except MistypedError as error:
            refused.add(str(error))
        else:
            assemble([(place, record)], Assembly.TREE if layout.assembly is Assembly.WHOLE else layout.assembly)
    assert [each for each in refused if ": " not in each] == []


@pytest.mark.parametrize("kind", ROWS)
def test_no_other_layout_takes_a_row(kind: SourceKind) -> None:
    for row in ROWS[kind][:1]:
        assert [other for other, layout in LAYOUTS.items() if layout.fits(row)] == [kind]
