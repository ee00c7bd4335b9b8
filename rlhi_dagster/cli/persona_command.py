"""``rlhi persona``: a user's lines at a moment, with the messages that support them.

What belongs here: the command's arguments and words. What does not: where lines come from (the other modules here).
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base import escapes
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.cli.why_command import any_of
from rlhi_dagster.personas.settings import PRECISION
from rlhi_dagster.personas.versions import EXTRACTIVE

AROUND = 60
"""Characters shown before and after quoted words."""
WHOLE = 160
"""Characters shown of a message that supports a line as a whole."""


def add_parser(commands: Any) -> None:
    """Add ``persona`` to the parsers of ``rlhi``."""
    parser = commands.add_parser(
        "persona",
        help="show what is known of a user at a moment, and which messages say so",
        description="Persona lines valid at a moment, each with the time since when, who wrote it, and the messages that support it. Shows "
        "users' words.",
    )
    parser.add_argument(
        "user", metavar="USER", nargs="?", help="fingerprint of the user (`user_id`), or the beginning of it if that is unique"
    )
    parser.add_argument("--random", action="store_true", help="a user drawn from those of whom something is known, another one each time")
    parser.add_argument(
        "--at", type=_moment, metavar="TIME", help="the moment, as 2024-05-01 or 2024-05-01T12:00:00Z (UTC); now if not given"
    )
    parser.add_argument("--all", action="store_true", help="earlier versions too")
    parser.add_argument("--json", action="store_true", help="the rows of the table `personas` as JSON, without the messages")


def run(given: argparse.Namespace) -> str:
    """Do what the command line says; return what came out.

    Raises:
        ValueError: The user is not known, or not uniquely, or a table is missing.
    """
    if bool(given.user) == given.random:
        raise ValueError("give the fingerprint of a user, or --random for any of whom something is known")
    lake, at = Lake(root=str(profiles.current().root / "lake")), given.at or datetime.now(UTC)
    users, personas = lake.scan("users"), lake.scan("personas")
    user = given.user or any_of(personas.filter(pl.col("valid_from") < at), "user_id")
    if given.json:
        return json.dumps(_at(personas, _only(users, user), at, with_past=given.all).to_dicts(), indent=1, default=str)
    return shown(users, personas, lake.scan("turns"), user, at, with_past=given.all)


def shown(users: pl.LazyFrame, personas: pl.LazyFrame, turns: pl.LazyFrame, user: str, at: datetime, *, with_past: bool) -> str:
    """A user's lines at a moment as text.

    Args:
        users: Rows of ``tables.USERS``.
        personas: Rows of ``tables.PERSONAS``.
        turns: Rows of ``tables.TURNS``.
        user: The user's id or a unique beginning of it.
        at: The moment; a line counts from strictly after its `valid_from` up to and with its `valid_until`.
        with_past: Show versions that ended before the moment, too.

    Raises:
        ValueError: No user, or more than one, begins so.
    """
    user_id = _only(users, user)
    lines = _at(personas, user_id, at, with_past=with_past)
    valid = lines.filter(~pl.col("is_over")).height
    cited = lines["evidence"].explode(empty_as_null=True).drop_nulls().unique()
    said = turns.filter(pl.col("turn_id").is_in(cited.implode())).select("turn_id", "asked_at", "prompt").collect()
    messages = {turn_id: (asked_at, prompt) for turn_id, asked_at, prompt in said.iter_rows()}
    head = f"user {user_id} at {_time(at)}: {valid} line{'' if valid == 1 else 's'}"
    by_rule = ["", PRECISION] if (lines["writer"] == EXTRACTIVE).any() else []
    return escapes.lines([head, *(text for row in lines.to_dicts() for text in ["", *_line(row, messages)]), *by_rule])


def _at(personas: pl.LazyFrame, user_id: str, at: datetime, *, with_past: bool) -> pl.DataFrame:
    """A user's lines at a moment, with ``is_over`` of versions that ended before it."""
    begun = personas.filter((pl.col("user_id") == user_id) & (pl.col("valid_from") < at)).sort("slot", "valid_from").collect()
    is_over = (pl.col("valid_until") < at).fill_null(False)
    return begun.with_columns(is_over=is_over).filter(pl.lit(with_past) | ~is_over)


def _only(users: pl.LazyFrame, beginning: str) -> str:
    if not beginning:
        raise ValueError("give the fingerprint of a user, or the beginning of it")
    found = users.filter(pl.col("user_id").str.starts_with(beginning)).select("user_id").sort("user_id").collect()["user_id"].to_list()
    if beginning in found:
        return beginning
    if not found:
        raise ValueError(f"no user's fingerprint begins with {beginning}; the table users has them all (rlhi export)")
    if len(found) > 1:
        raise ValueError(
            f"{len(found):,} users' fingerprints begin with {beginning}: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"
        )
    return found[0]


def _line(row: dict[str, Any], messages: dict[str, tuple[datetime, str]]) -> list[str]:
    until = "" if row["valid_until"] is None else f" until {_time(row['valid_until'])}"
    call = "" if row["call_id"] is None else f", call {row['call_id']}"
    over = " (over)" if row["is_over"] else ""
    lines = [f"{row['slot']}: {_flat(row['line'])}{over}", f"  since {_time(row['valid_from'])}{until}, by {row['writer']}{call}"]
    return lines + [_evidence(*cited, messages) for cited in zip(row["evidence"], row["quotes"], strict=True)]


def _evidence(turn_id: str, quote: str | None, messages: dict[str, tuple[datetime, str]]) -> str:
    if turn_id not in messages:
        return f"  {turn_id}: no such message in turns"
    asked_at, prompt = messages[turn_id]
    return f"  {_time(asked_at)}  {_excerpt(prompt, quote)}  ({turn_id})"


def _excerpt(text: str, quote: str | None) -> str:
    """The quoted words within what stands around them, in angle marks; without any, the beginning of the text."""
    if quote is None:
        return _flat(text) if len(_flat(text)) <= WHOLE else f"{_flat(text)[:WHOLE]}…"
    before, found, after = text.partition(quote)
    if not found:
        return f"‹{_flat(quote)}› is not in the message"
    before, after = _flat(before), _flat(after)
    left = f"…{before[-AROUND:]}" if len(before) > AROUND else before
    right = f"{after[:AROUND]}…" if len(after) > AROUND else after
    return " ".join(filter(None, [left, f"‹{_flat(quote)}›", right]))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no time such as 2024-05-01 or 2024-05-01T12:00:00Z") from error
