"""Rows for reading: three kept ones with all that is said, cut into lines that fit; none of real users."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import PERSONAS, REWRITE_PAIRS, TABLES
from rlhi_dagster.graph import declare, metadata
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.excerpts import READ, excerpts
from rlhi_dagster.graph.io_managers import TableIOManager
from rlhi_dagster.profiles import Profile
from tests.built import built

SAMPLE = profiles.load("sample")


def pair(number: int, **given: object) -> dict[str, object]:
    said = {
        "strategy": "feedback",
        "persona": "Prefers tea.",
        "prompt": [{"role": "user", "content": f"ask {number}"}],
        "chosen": "yes",
        "rejected": "no",
    }
    return dict.fromkeys(REWRITE_PAIRS.columns) | said | {"pair_id": str(number), "is_kept": True} | given


def test_every_column_for_reading_is_one_of_its_table() -> None:
    assert {
        name: set(columns) - set(TABLES[name].columns) for name, columns in READ.items() if set(columns) - set(TABLES[name].columns)
    } == {}


def test_the_first_three_kept_rows_are_shown_with_all_that_is_said() -> None:
    rows = [pair(0, is_kept=False), pair(1, persona=None), *(pair(number) for number in range(2, 9))]
    shown = excerpts("rewrite_pairs", pl.DataFrame(rows, schema=REWRITE_PAIRS.schema, orient="row"))["examples"].md_str
    assert [line for line in shown.splitlines() if "request" in line] == [f"| {n} request | ask {n + 1} |" for n in (1, 2, 3)]
    assert [line.split("|")[1].strip() for line in shown.splitlines()[2:7]] == [
        "1 strategy",
        "1 persona",
        "1 request",
        "1 chosen",
        "1 rejected",
    ]


def test_of_a_dialogue_the_last_message_is_shown_and_how_many_came_before() -> None:
    said = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    shown = excerpts("rewrite_pairs", pl.DataFrame([pair(1, prompt=said)], schema=REWRITE_PAIRS.schema, orient="row"))["examples"].md_str
    assert "| 1 request | c (after 2 earlier messages) |" in shown.splitlines()


def test_long_texts_are_cut_into_lines_that_fit_and_say_that_they_go_on() -> None:
    long = " ".join(["word"] * 200)
    shown = excerpts("rewrite_pairs", pl.DataFrame([pair(1, chosen=long)], schema=REWRITE_PAIRS.schema, orient="row"))["examples"].md_str
    lines = [line for line in shown.splitlines() if "word" in line]
    assert len(lines) == 6
    assert max(map(len, lines)) < 60
    assert lines[-1].rstrip(" |").endswith("…")


def test_a_text_cannot_leave_its_cell() -> None:
    given = pair(1, chosen="a|b\n\n| c | d |")
    shown = excerpts("rewrite_pairs", pl.DataFrame([given], schema=REWRITE_PAIRS.schema, orient="row"))["examples"].md_str
    (line,) = [line for line in shown.splitlines() if "chosen" in line]
    assert line == "| 1 chosen | `a\\|b \\| c \\| d \\|` |"


@declare.asset("personas", "personas", set())
def personas() -> dg.MaterializeResult[pl.DataFrame]:
    """One row is a line."""
    row = dict.fromkeys(PERSONAS.columns) | {"persona_line_id": "l", "slot": "drink", "line": "Prefers tea.", "quotes": ["tea please"]}
    return metadata.result("personas", pl.DataFrame([row], schema=PERSONAS.schema, orient="row"), share=1.388e-17, mean=0.123456789)


def shown_of(profile: Profile, root: Path) -> dict[str, object]:
    resources = {"io_manager": TableIOManager(root=str(root)), "lake": Lake(root=str(root)), "settings": Settings(profile)}
    (made,) = dg.materialize(built(profile, personas), resources=resources).asset_materializations_for_node("personas")
    return {name: value.value for name, value in made.metadata.items()}


def test_words_of_simulated_users_alone_come_into_the_event_log(tmp_path: Path) -> None:
    of_town = shown_of(SAMPLE, tmp_path / "town")
    assert "Prefers tea." in str(of_town["examples"])
    of_people = shown_of(SAMPLE.model_copy(update={"truth": None}), tmp_path / "people")
    assert "tea" not in str(of_people)
    assert of_people.keys() == of_town.keys() - {"examples"}
    assert (of_town["share"], of_town["mean"]) == (0.0, 0.123457), "what rounding has left of 0 is 0"
