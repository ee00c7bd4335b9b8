"""``rlhi store``: what is in the response store, whether it is sound, and its care.

What belongs here: the command's arguments and words. What does not: the work (the other modules here).
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rlhi_dagster import profiles
from rlhi_dagster.base.failures import message
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.progress import Progress
from rlhi_dagster.provenance import answers
from rlhi_dagster.provenance.lookup import Rows
from rlhi_dagster.store import compaction, garbage, integrity, stats, uses
from rlhi_dagster.store.compaction import Tell, folders
from rlhi_dagster.store.segments import ANSWERED_AT

EXAMPLES_SHOWN = 10
"""Problems shown of each folder."""
ROWS_SHOWN = 5
"""Rows of each table that rest on an answer."""


class UnsoundStoreError(ValueError):
    """``rlhi store verify`` found problems; the message lists them."""


def add_parser(commands: Any) -> None:
    """Add ``store`` and its commands to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "store",
        help="look at the response store, check it, care for it",
        description="The response store keeps every model answer: docs/concepts/response_store.md. RLHI_PROFILE, RLHI_SOURCE and RLHI_DATA "
        "choose which.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("stats", help="answers, errors by reason, files, bytes, tokens and cost, by kind and model")
    actions.add_parser("verify", help="read everything; exit code 1 if something is wrong")
    actions.add_parser("compact", help="merge small files, drop repeated answers and answered errors; runs may go on meanwhile")
    gc = actions.add_parser(
        "gc",
        help="show or delete answers that are old or that nothing uses",
        description="Show what would be deleted, or with --yes delete it. With both conditions an answer must fulfil both. Answers of "
        "the last 24 hours are never unreferenced. Do not delete while a run is under way: it may count on an answer that goes.",
    )
    gc.add_argument("--older-than", type=_days, metavar="DAYS", help="answers kept more than so many days ago")
    gc.add_argument("--unreferenced", action="store_true", help="answers that no asset's last materialization used")
    gc.add_argument("--yes", action="store_true", help="delete them; without it nothing is deleted")
    why = actions.add_parser(
        "explain",
        help="why an answer was computed",
        description="Where an answer is, which assets used it, which rows name it, and how its request differs from the earlier one most "
        "like it; of an asset, how often each difference made its last run compute an answer. Shows no chat text.",
    )
    why.add_argument("what", metavar="KEY|ASSET", help="a key or the beginning of one (at least 4 digits), or the name of an asset")


def run(given: argparse.Namespace, say: Callable[[str], None]) -> str:
    """Do what the command line says; return what came out.

    Args:
        given: Arguments of the command.
        say: Where lines of progress go.

    Raises:
        ValueError: It cannot be done, or the store is unsound; the message is for the terminal.
    """
    root = profiles.current().root / "responses"
    if not list(folders(root)):
        raise ValueError(f"there is no response store at {root}: it begins with the first model answer")
    tell = partial(progress, say)
    match given.action:
        case "stats":
            return "\n".join(_stats_lines(stats.stats(kind, folder, tell(folder.name))) for kind, folder in folders(root))
        case "verify":
            return verified(root, tell)
        case "compact":
            return "\n".join(_compact_line(compaction.compact(folder, kind, tell(folder.name))) for kind, folder in folders(root))
        case "gc":
            return _collect(root, garbage.Rule(given.older_than, given.unreferenced), given.yes, tell)
        case _:
            return _explain(root, given.what, tell)


def _days(text: str) -> timedelta:
    try:
        days = timedelta(days=float(text))
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no number of days") from error
    if days < timedelta():
        raise argparse.ArgumentTypeError("must not be negative")
    return days


def progress(say: Callable[[str], None], what: str) -> Tell:
    """Lines of progress for work on one folder."""
    report = Progress(say, what)
    # Progress tells the end always; work that took no time is not worth a line.
    return lambda done, total: report(done, total) if done < total or report.last > report.started else None


def _stats_lines(found: stats.Stats) -> str:
    lines = [f"{found.kind} {found.model}: {found.rows:,} answers in {found.segments:,} files, {_size(found.size)}"]
    if found.oldest and found.newest:
        lines.append(f"  kept from {found.oldest:%Y-%m-%d %H:%M} to {found.newest:%Y-%m-%d %H:%M} UTC")
    if found.errors:
        lines.append(f"  errors: {', '.join(f'{reason} {count:,}' for reason, count in found.errors.most_common())}")
    tokens = [f"{found.sums[name]:,.0f} {name.replace('_', ' ')}" for name in found.sums if name.endswith("_tokens")]
    if tokens:
        lines.append(f"  {', '.join(tokens)}, ${found.sums.get('cost_usd', 0):,.2f}")
    return "\n".join(lines)


def verified(root: Path, tell: Callable[[str], Tell]) -> str:
    """What ``rlhi store verify`` says of a store.

    Raises:
        UnsoundStoreError: Something is wrong.
    """
    lines, problems = [], 0
    for kind, folder in folders(root):
        found = integrity.verify(kind, folder, tell(folder.name))
        lines.append(f"{kind} {folder.name}: {f'{len(found):,} problems' if found else 'sound'}")
        lines += [f"  {each.file}: {each.what}" for each in found[:EXAMPLES_SHOWN]]
        lines += [f"  and {len(found) - EXAMPLES_SHOWN:,} more"] if len(found) > EXAMPLES_SHOWN else []
        problems += len(found)
    if broken := uses.damaged(root):
        lines += ["references:", *(f"  {message(error)}" for error in broken.values())]
        problems += len(broken)
    if problems:
        raise UnsoundStoreError("\n".join([f"{problems:,} problems", *lines]))
    return "\n".join(lines)


def _compact_line(done: compaction.Compaction) -> str:
    removed = [
        f"{count:,} {what}"
        for count, what in (
            (done.repeated_rows, "repeated answers"),
            (done.error_rows, "answered or older errors"),
            (done.partial_files, "leftovers of killed writers"),
        )
        if count
    ]
    gone = f"; removed {', '.join(removed)}" if removed else ""
    return f"{done.folder.parent.name} {done.folder.name}: {done.segments_before:,} files before, {done.segments_after:,} after{gone}"


def _collect(root: Path, rule: garbage.Rule, delete: bool, tell: Callable[[str], Tell]) -> str:
    found = garbage.collect(root, rule, delete=delete, tell=tell)
    lines = [
        f"{each.kind} {each.folder.name}: {each.note or f'{each.rows:,} of {each.of_rows:,} answers, about {_size(each.size)}'}"
        for each in found
    ]
    rows, size = sum(each.rows for each in found), sum(each.size for each in found)
    verb = "deleted" if delete else "nothing is deleted without --yes; would go"
    return "\n".join([*lines, f"{verb}: {rows:,} answers, about {_size(size)}"])


def _explain(root: Path, what: str, tell: Callable[[str], Tell]) -> str:
    if (root / "references" / what).is_dir():
        return _explain_asset(root, what, tell)
    if not re.fullmatch("[0-9a-f]{4,32}", what):
        raise ValueError(
            f"{what} is neither an asset that has recorded which answers it uses nor the beginning of a key (4 to 32 of 0-9a-f)"
        )
    found = answers.locate(root, what)
    keys = sorted({each.row["key"] for each in found})
    if not keys:
        raise ValueError(f"no answer in {root} has a key that begins with {what}: it was never asked for, failed, or was deleted")
    if len(keys) > 1:
        shown = ", ".join(keys[:5])
        raise ValueError(f"{len(keys):,} keys begin with {what}: {shown}{', ...' if len(keys) > 5 else ''}")
    return "\n".join(
        [f"key {keys[0]}", *_where(found), *_users(root, keys[0]), *_rows(keys[0]), *_why(answers.explain(found[0], tell("comparing")))]
    )


def _where(found: list[answers.Found]) -> list[str]:
    lines = []
    for each in found:
        error = each.row.get("error")
        kept = f"{each.kind} {each.folder.name}, kept {each.row[ANSWERED_AT]:%Y-%m-%d %H:%M:%S} UTC in {each.segment}"
        reason = f", an error: {error.partition(':')[0]}" if error else ""
        lines.append(f"  is in: {kept}{reason}")
    row = found[0].row
    if row.get("settings"):
        lines.append(f"  asked: sample {row['sample_index']}, {row['prompt_characters']:,} characters, settings {row['settings']}")
    return lines


def _users(root: Path, key: str) -> list[str]:
    used = [f"{each.asset} (run {each.run_id})" for each in uses.assets_of(root, key)]
    return [f"  used by: {', '.join(used) if used else 'no asset, as of the last materializations'}"]


def _rows(key: str) -> list[str]:
    """Rows of the lake that rest on an answer, a line a table."""
    naming = Rows(Lake(root=str(profiles.data_root() / "lake"))).naming(key)
    return [
        f"  named by: {table} {', '.join(told[:ROWS_SHOWN])}{f' and {len(told) - ROWS_SHOWN:,} more' if len(told) > ROWS_SHOWN else ''}"
        for table, told in naming.items()
    ]


def _why(found: answers.Comparison) -> list[str]:
    lines = [f"  why: {', '.join(found.reasons)}"]
    lines += [f"    {setting}" for setting in found.settings]
    if found.earlier_key:
        lines.append(f"  earlier answer: {found.earlier_key} of {found.earlier_model}, kept {found.earlier_at:%Y-%m-%d %H:%M:%S} UTC")
    return lines


def _explain_asset(root: Path, asset: str, tell: Callable[[str], Tell]) -> str:
    records, used, found = answers.explain_last_run(root, asset, tell("comparing"))
    if not records:
        raise ValueError(f"{asset} has recorded no answers that it uses")
    first = "first run on record" if records[0].since is None else f"the one before ended by {records[0].since:%Y-%m-%d %H:%M:%S} UTC"
    lines = [f"{asset}, run {records[0].run_id} ({first}): used {used:,} answers, {len(found):,} of them new"]
    groups = Counter((each.reasons, each.settings) for each in found)
    for (reasons, settings), count in groups.most_common():
        example = next(each for each in found if (each.reasons, each.settings) == (reasons, settings))
        lines.append(f"  {count:>10,}  {', '.join([*reasons, *settings])}  (as {example.key})")
    return "\n".join(lines)


def _size(size: float) -> str:
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:,.0f} {units[0]}" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"
