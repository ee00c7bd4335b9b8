"""What the untrained model does by itself in the village: the base rate of every value, and what the kept logs say of wishes.

What belongs here: rates over the replies that are kept, with intervals, clustered by topic or conversation. What does not: trained policies
(the report). No model is asked: ``python benchmarks/village_rates.py`` prints the tables of ``docs/concepts/village.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.engines.base import ChatRequest
from rlhi_dagster.feedback.aspects import requests
from rlhi_dagster.simulation.village import replies, wordings
from rlhi_dagster.simulation.village.checkers import CHECKERS
from rlhi_dagster.simulation.village.logs import VillageSettings, build
from rlhi_dagster.simulation.village.preferences import VALUES


class Opening(NamedTuple):
    """A reply to an opening request.

    Attributes:
        request: The user's words.
        shown: The reply that the operator showed beforehand; empty if there was none.
        reply: What the model wrote.
    """

    request: str
    shown: str
    reply: str


def openings(folder: Path) -> list[Opening]:
    """Every reply to an opening request that is kept, first tries and second ones."""
    known, found = replies.read(folder), list[Opening]()

    def noted(request: ChatRequest) -> str | None:
        text, said = known(request), [message["content"] for message in request.messages]
        if text is not None and len(said) in (1, 3) and (len(said) == 1 or said[0] in SHOWN):
            found.append(Opening(said[-1], "" if len(said) == 1 else said[1], text))
        return text

    build(VillageSettings(), noted)
    return found


SHOWN = ("How do I boil an egg?", "What is a glacier?", "Help me pack for a day hike.")
"""What the operator's exchanges ask, and no user does."""


def share(hits: Iterable[bool], clusters: Sequence[str]) -> str:
    """A share with its interval and the number of items, as a table shows them."""
    found = estimate([float(hit) for hit in hits], clusters, is_share=True)
    return f"{found.value:.3f} [{found.ci_low:.3f}, {found.ci_high:.3f}] | {found.n}" if found.n else "- | 0"


def base_rates(found: Sequence[Opening]) -> list[str]:
    """A row for each value: how often a reply has it where nothing was shown, and where the operator showed it."""
    rows = ["| aspect | value | base rate | n | where it was shown | n |", "|---|---|---|--:|---|--:|"]
    for aspect, values in VALUES.items():
        for value in values:
            plain = [each for each in found if not each.shown]
            shown = [each for each in found if each.shown and CHECKERS[aspect](each.shown) == value]
            cells = [share([CHECKERS[aspect](x.reply) == value for x in given], [x.request for x in given]) for given in (plain, shown)]
            rows.append(f"| {aspect} | {value} | {cells[0]} | {cells[1]} |")
    return rows


def wishes(folder: Path) -> list[str]:
    """A row for each aspect: wordings that the lexicon hears, and wishes in the logs that the next logged reply meets."""
    said = {row["conversation_hash"]: row["conversation"] for row in pl.read_parquet(folder / "wildchat.parquet").to_dicts()}
    labels = pl.read_parquet(folder / "truth" / "labels.parquet").filter(pl.col("aspect").is_not_null()).to_dicts()
    rows = ["| aspect | plain wordings heard | indirect ones | wishes met by the next reply | n |", "|---|--:|--:|---|--:|"]
    for aspect, values in VALUES.items():
        heard = []
        for words in (wordings.PLAIN, wordings.INDIRECT):
            texts = [(text, value) for value in values for text in words[aspect, value]]
            count = sum((aspect, value) in {(each.aspect, each.value) for each in requests(text)} for text, value in texts)
            heard.append(f"{count} of {len(texts)}")
        asked = [row for row in labels if row["aspect"] == aspect]
        met = [CHECKERS[aspect](said[row["conversation_hash"]][row["message_index"] + 1]["content"]) == row["value"] for row in asked]
        rows.append(f"| {aspect} | {heard[0]} | {heard[1]} | {share(met, [row['conversation_hash'] for row in asked])} |")
    return rows


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=profiles.ROOT / "data" / "village", help="folder of the village (default %(default)s)")
    given = parser.parse_args()
    print("\n".join([*base_rates(openings(given.data)), "", *wishes(given.data)]))


if __name__ == "__main__":
    main()
