"""``rlhi why``: the command's arguments, and what is printed."""

from __future__ import annotations

import argparse
from typing import Any

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.provenance.pairs import why
from rlhi_dagster.provenance.replies import why_reply
from rlhi_dagster.provenance.words import as_json, text


def add_parser(commands: Any) -> None:
    """Add ``why`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "why",
        help="show what made a preference pair or an evaluated reply",
        description="The messages, the label, the persona lines with their evidence, both sides, and the model calls that made a pair, "
        "kept or dropped; or the item, the verdicts and the model calls of an evaluated reply: docs/lineage.md. Shows users' words.",
    )
    parser.add_argument(
        "pair",
        metavar="PAIR",
        help="a pair_id of preference_pairs, rewrite_pairs, reward_pairs, reasoning_pairs or online_pairs, or a response_id of responses "
        "(RECIPE/PROMPT_ID), or its beginning",
    )
    parser.add_argument("--full", action="store_true", help="texts whole; otherwise long ones are shortened")
    parser.add_argument("--json", action="store_true", help="everything as JSON")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: There is no such pair or reply, or there are several; the message is for the terminal.
    """
    profile = profiles.current()
    lake, store = Lake(root=str(profile.root / "lake")), profile.root / "responses"
    found = why_reply(lake, store, given.pair) if "/" in given.pair else why(lake, store, given.pair, profile.recipes)
    return as_json(found) if given.json else text(found, is_full=given.full)
