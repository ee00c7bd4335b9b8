"""``rlhi why``: the command's arguments, and what is printed."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from rlhi_dagster.base.lake import Lake
    from rlhi_dagster.provenance import Evaluated, Lineage
    from rlhi_dagster.provenance.messages import Message


def add_parser(commands: Any) -> None:
    """Add ``why`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "why",
        help="show what made a preference pair or an evaluated reply, or what was made of a message",
        description="The messages, the label, the persona lines with their evidence, both sides, and the model calls that made a pair, "
        "kept or dropped; the item, the verdicts and the model calls of an evaluated reply; or the messages around a message of a user, "
        "its label, its wish and topic if it is a complaint, and the persona lines that rest on it: docs/concepts/lineage.md. "
        "Shows users' words.",
    )
    parser.add_argument(
        "pair",
        metavar="PAIR",
        nargs="?",
        help="a pair_id of preference_pairs, rewrite_pairs, reward_pairs, reasoning_pairs, explicit_pairs or online_pairs, or a "
        "response_id of responses (RECIPE/PROMPT_ID), or its beginning; or a turn_id of turns (CONVERSATION_ID:MESSAGE_INDEX)",
    )
    parser.add_argument("--random", action="store_true", help="a pair drawn from the kept ones, another one each time")
    parser.add_argument("--full", action="store_true", help="texts whole; otherwise long ones are shortened")
    parser.add_argument("--json", action="store_true", help="everything as JSON")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: There is no such pair, reply or message, or there are several; the message is for the terminal.
    """
    from rlhi_dagster import profiles
    from rlhi_dagster.base.lake import Lake
    from rlhi_dagster.provenance.words import as_json, text

    profile = profiles.current()
    lake, store = Lake(root=str(profile.root / "lake")), profile.root / "responses"
    if bool(given.pair) == given.random:
        raise ValueError("give the id of a pair, a reply or a message, or --random for any kept pair")
    found = _found(lake, store, given.pair or any_of(lake.scan("preference_pairs").filter("is_kept"), "pair_id"), profile.recipes)
    return as_json(found) if given.json else text(found, is_full=given.full)


def any_of(rows: pl.LazyFrame, column: str) -> str:
    """A value of a column, drawn anew each time.

    Raises:
        ValueError: There is no row.
    """
    values = rows.select(column).unique().sort(column).collect()[column]
    if not len(values):
        raise ValueError(f"there is no {column} to draw from: the table is empty")
    return str(secrets.choice(values))


def _found(lake: Lake, store: Path, wanted: str, recipes: str | None) -> Lineage | Evaluated | Message:
    """What an id is of. Ids of conversations are the source's own, so a message is known by the whole id before anything else."""
    from rlhi_dagster.provenance.lookup import Rows
    from rlhi_dagster.provenance.messages import why_message
    from rlhi_dagster.provenance.pairs import why
    from rlhi_dagster.provenance.replies import why_reply

    if Rows(lake).one("turns", "turn_id", wanted):
        return why_message(lake, store, wanted)
    if "/" in wanted:
        return why_reply(lake, store, wanted)
    return why_message(lake, store, wanted) if ":" in wanted else why(lake, store, wanted, recipes)
