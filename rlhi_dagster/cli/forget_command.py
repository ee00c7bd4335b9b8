"""``rlhi forget``: what would go, and making it go.

What belongs here: the command's arguments and words. What does not: the work (``removal``).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from rlhi_dagster import profiles
from rlhi_dagster.base import escapes, exports, launching
from rlhi_dagster.conversations.ingest import user_id
from rlhi_dagster.forgetting import marks, tombstones
from rlhi_dagster.forgetting.footprint import users_like
from rlhi_dagster.forgetting.forget import Outputs, Traces, forget, look
from rlhi_dagster.profiles import salts

_FINGERPRINT = re.compile("[0-9a-f]{32}")


def add_parser(commands: Any) -> None:
    """Add ``forget`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "forget",
        help="forget a user: tombstone, tables, model answers",
        description="Show what the outputs hold of a user, or with --yes remove it and never let it in again. Do not forget while a run is "
        "under way. What is and is not covered: docs/concepts/lineage.md.",
    )
    parser.add_argument("user", metavar="USER", nargs="?", help="the user's fingerprint (user_id), or the beginning of one")
    parser.add_argument(
        "--users",
        metavar="FILE",
        type=Path,
        help="forget all users of a file, one a line: a fingerprint, or the name by which the logs call the user",
    )
    parser.add_argument("--yes", action="store_true", help="forget; without it nothing is removed")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: There is no such user, or there are several; the message is for the terminal.
    """
    if (given.user is None) == (given.users is None):
        raise ValueError("give a user, or with --users a file of users, and not both")
    profile = profiles.current()
    outputs = outputs_of(profile)
    users = [_user(outputs, given.user)] if given.users is None else _users(given.users, profile, outputs)
    if not given.yes:
        return "\n".join([*(_text(look(outputs, user)) for user in users), "nothing is removed without --yes"])
    for user in users:  # all of them before anything is removed, so that a run that begins meanwhile lets none in
        tombstones.add(outputs.root, user, outputs.salt)
    return "\n".join([*(_text(forget(outputs, user)) for user in users), *_next(outputs)])


def outputs_of(profile: profiles.Profile) -> Outputs:
    """Where the outputs of a profile lie, what its feedback classifier was trained on, and with which salt users are told.

    Raises:
        ValueError: The salt in use is another than that of the tables.
    """
    labelled = profiles.labelled_follow_ups(profile)
    lake = profile.root / "lake"
    salt = salts.recorded(lake) or salts.fingerprint(profiles.salt(profile))
    if labelled is None:
        return Outputs(profile.root, writer=profile.personas, salt=salt)
    from rlhi_dagster.feedback.labels.agreement import read_gold

    conversations = frozenset(read_gold(profiles.project_path(labelled.labels))["conversation_hash"])
    return Outputs(profile.root, conversations, profile.personas, salt)


def _users(file: Path, profile: profiles.Profile, outputs: Outputs) -> list[str]:
    """Fingerprints of the users of a file, each once."""
    try:
        named = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: give one user a line") from error
    if not named:
        raise ValueError(f"{file} names nobody: give one user a line, a fingerprint or the name by which the logs call the user")
    names = [name for name in named if not _FINGERPRINT.fullmatch(name)]
    if not names:
        return list(dict.fromkeys(named))
    salt = profiles.salt(profile)
    if salts.fingerprint(salt) != outputs.salt:
        raise ValueError(f"{file} has names of users, and the tables were made with another salt: set RLHI_SALT to what it was")
    return list(dict.fromkeys(user_id(name, "", salt) if name in set(names) else name for name in named))


def _user(outputs: Outputs, beginning: str) -> str:
    if not beginning:
        raise ValueError("give a user's fingerprint or its beginning")
    known = sorted({*users_like(outputs.lake, beginning), *(user for user in tombstones.read(outputs.root) if user.startswith(beginning))})
    if len(known) > 1:
        raise ValueError(f"{len(known):,} users begin with {beginning}: {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}")
    if not known and not _FINGERPRINT.fullmatch(beginning):
        raise ValueError(f"no user in {outputs.lake.root} begins with {beginning}; a fingerprint has 32 digits, see the column user_id")
    return known[0] if known else beginning


def _text(found: Traces) -> str:
    lines = [f"user {found.found.user_id}"]
    for name, (rows, others) in sorted(found.rows.items()):
        beside = f"  ({others:,} of other users that name this one; they come back without)" if others else ""
        lines.append(f"  {name:<22}{rows:>9,} rows{beside}")
    lines += [f"  {f'{kind} {model}':<52}{rows:>9,} answers" for (kind, model), rows in sorted(found.answers.items())]
    lines += [f"  {found.files:,} job files, leftovers of killed runs, and exports among the outputs"] if found.files else []
    lines += ["  the report, which shows requests of users"] if found.has_report else []
    lines += [f"  {artefact}: trained on data of the user, gets a mark" for artefact in found.artefacts]
    if found.is_nothing:
        lines.append("  nothing of this user is in the outputs")
    return "\n".join(lines)


def _next(outputs: Outputs) -> list[str]:
    """What forgetting leaves to be done."""
    lines = [f"forgotten; {outputs.root / tombstones.FILE} keeps them out as long as RLHI_SALT stays the same"]
    if marked := marks.marks(outputs.lake):
        lines += ["to train again:", *(f"  {each}" for each in marked)]
    if given_out := exports.made(outputs.root):
        lines += ["made before and still there; they may hold their texts, and are for you to delete or to make again:"]
        lines += [f"  {escapes.line(str(path))}" for path in given_out]
    lines += ["next, make the tables again without them:", f"  {launching.command_of_whole_job('preference_data', 'months')}"]
    if marked:
        lines += ["then train again what is marked, and nothing else:", f"  {launching.command_of_whole_job('training', 'recipes')}"]
    return [*lines, "docs/concepts/lineage.md says what is not covered"]
