"""``rlhi logs``: the command's arguments, and the files that it writes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhi_dagster.base.aside import put
from rlhi_dagster.base.lake import check_writable


def add_parser(commands: Any) -> None:
    """Add ``logs`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "logs",
        help="write a page on what a log file holds: complaints, topics, users, labels to correct, pairs that would follow",
        description="One self-contained HTML page, without a run and without asking any model but the packaged labeller. The page holds "
        "users' words, redacted; the summary that is printed holds none. What is on it: docs/reference/logs.md.",
    )
    parser.add_argument("location", metavar="LOCATION", help="file, folder, pattern or hf:// path of a layout in docs/reference/logs.md")
    parser.add_argument(
        "--out", metavar="PAGE.html", type=Path, default=Path("logs.html"), help="the page; the labels to correct go to PAGE.gold.csv"
    )
    parser.add_argument("--min-users", metavar="K", type=_count, default=5, help="show no group of fewer users (default %(default)s)")


def run(given: argparse.Namespace, tell: Callable[[str], None]) -> str:
    """Do what the command line says; return the summary.

    Raises:
        ValueError: There is nothing at the location, its layout is not known, no row is accepted, or a file cannot be written.
    """
    from rlhi_dagster.engines.embedding import MiniLM
    from rlhi_dagster.feedback.labels import offline
    from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
    from rlhi_dagster.feedback.labels.follow_ups import ClassifierLabeller
    from rlhi_dagster.report import own_logs

    page, corrections = given.out, given.out.with_suffix(".gold.csv")
    if page.suffix.lower() != ".html":
        raise ValueError(f"{page}: the page must end in .html")
    for file in (page, corrections):
        if file.is_dir():
            raise ValueError(f"{file} is a folder")
        check_writable(file)
    embed = MiniLM().embed
    tell(f"reading {given.location}")
    found = offline.read_follow_ups(given.location)
    tell(f"{found.account}; labelling {len(found.frame):,} follow-ups")
    labels = ClassifierLabeller(FeedbackClassifier.load(), embed).label(found.frame)
    tell("grouping complaints and topics")
    own = own_logs.survey(given.location, found, labels, embed, given.min_users)
    put(page, own_logs.render(own, corrections.name))
    is_kept = corrections.exists()
    if not is_kept:
        put(corrections, own_logs.gold(own).write_csv())
    kept = " (it was there and is left as it is, corrections and all)" if is_kept else ""
    return f"{own_logs.summary(own)}\n\npage: {page.absolute().as_uri()}\nlabels to correct: {corrections}{kept}"


def _count(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of users: give 1 or more")
    return count
