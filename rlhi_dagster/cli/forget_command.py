"""``rlhi forget``: what would go, and making it go.

What belongs here: the command's arguments and words. What does not: the work (``removal``).
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from rlhi_dagster import profiles
from rlhi_dagster.forgetting import marks, tombstones
from rlhi_dagster.forgetting.footprint import users_like
from rlhi_dagster.forgetting.forget import Outputs, Traces, forget, look

_FINGERPRINT = re.compile("[0-9a-f]{32}")


def add_parser(commands: Any) -> None:
    """Add ``forget`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "forget",
        help="forget a user: tombstone, tables, model answers",
        description="Show what the outputs hold of a user, or with --yes remove it and never let it in again. Do not forget while a run is "
        "under way. What is and is not covered: docs/lineage.md.",
    )
    parser.add_argument("user", metavar="USER", help="the user's fingerprint (user_id), or the beginning of one")
    parser.add_argument("--yes", action="store_true", help="forget; without it nothing is removed")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: There is no such user, or there are several; the message is for the terminal.
    """
    outputs = outputs_of(profiles.current())
    user_id = _user(outputs, given.user)
    return _text(forget(outputs, user_id), outputs) if given.yes else _text(look(outputs, user_id), None)


def outputs_of(profile: profiles.Profile) -> Outputs:
    """Where the outputs of a profile lie, and what its feedback classifier was trained on."""
    labelled = profiles.labelled_follow_ups(profile)
    if labelled is None:
        return Outputs(profiles.current().root, writer=profile.personas)
    from rlhi_dagster.feedback.labels.agreement import read_gold

    conversations = frozenset(read_gold(profiles.project_path(labelled.labels))["conversation_hash"])
    return Outputs(profiles.current().root, conversations, profile.personas)


def _user(outputs: Outputs, beginning: str) -> str:
    if not beginning:
        raise ValueError("give a user's fingerprint or its beginning")
    known = sorted({*users_like(outputs.lake, beginning), *(user for user in tombstones.read(outputs.root) if user.startswith(beginning))})
    if len(known) > 1:
        raise ValueError(f"{len(known):,} users begin with {beginning}: {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}")
    if not known and not _FINGERPRINT.fullmatch(beginning):
        raise ValueError(f"no user in {outputs.lake.root} begins with {beginning}; a fingerprint has 32 digits, see the column user_id")
    return known[0] if known else beginning


def _text(found: Traces, done: Outputs | None) -> str:
    lines = [f"user {found.found.user_id}"]
    for name, (rows, others) in sorted(found.rows.items()):
        beside = f"  ({others:,} of other users that name this one; they come back without)" if others else ""
        lines.append(f"  {name:<22}{rows:>9,} rows{beside}")
    lines += [f"  {f'{kind} {model}':<52}{rows:>9,} answers" for (kind, model), rows in sorted(found.answers.items())]
    lines += [f"  {found.files:,} job files and leftovers of killed runs"] if found.files else []
    lines += ["  the report, which shows requests of users"] if found.has_report else []
    lines += [f"  {artefact}: trained on data of the user, gets a mark" for artefact in found.artefacts]
    if found.is_nothing:
        lines.append("  nothing of this user is in the outputs")
    if done is None:
        return "\n".join([*lines, "nothing is removed without --yes"])
    lines.append(f"forgotten; {done.root / tombstones.FILE} keeps the user out as long as RLHI_SALT stays the same")
    if marked := marks.marks(done.lake):
        lines += ["to train again:", *(f"  {each}" for each in marked)]
    return "\n".join([*lines, "next: launch preference_data over all months, then training; docs/lineage.md says what is not covered"])
