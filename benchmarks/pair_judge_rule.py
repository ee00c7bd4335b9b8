"""What the rule of the pair judge makes of real follow-ups that criticise: how often it can tell, and how often it is right.

Every follow-up labelled `reattempt_with_feedback` is held against the logged reply that drew it, which by the label has what is
criticised: the criticism should apply, and the reply should not meet the feedback. The assistant's next logged reply is held against it as
a rewrite: if the rule reads wishes well, most of those meet it. No text is printed. Usage, with the labelled sample beside the project:
``python benchmarks/pair_judge_rule.py LABELS.csv CONVERSATIONS.parquet``; the results are recorded in ``docs/results/real_wildchat.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base.intervals import wilson
from rlhi_dagster.feedback import Aspect, Feedback
from rlhi_dagster.feedback.aspects import requests
from rlhi_dagster.feedback.labels.agreement import read_gold
from rlhi_dagster.feedback.labels.fitting import labelled_wildchat
from rlhi_dagster.preferences.criticism_fits import follow_up_applies, rewrite_meets

Row = dict[str, Any]
QUESTIONS: dict[str, Callable[[Row], bool | None]] = {
    "the criticism applies to the reply that drew it": lambda row: follow_up_applies(row["follow_up"], row["previous"], row["previous"]),
    "the reply that drew it meets the feedback": lambda row: rewrite_meets(row["follow_up"], row["previous"], row["previous"]),
    "the next reply meets the feedback": lambda row: rewrite_meets(row["follow_up"], row["next"], row["previous"]),
}


def follow_ups(labels: Path, conversations: Path) -> list[Row]:
    """Re-attempts with feedback that were answered, with the reply before and the reply after."""
    logs = pl.read_parquet(conversations).unique("conversation_hash", keep="first", maintain_order=True)
    said = dict(logs.select("conversation_hash", "conversation").iter_rows())
    rows = []
    for row in labelled_wildchat(read_gold(labels), logs).filter(label=Feedback.REATTEMPT_WITH_FEEDBACK.value).to_dicts():
        after = said[row["conversation_id"]][row["message_index"] + 1 :][:1]
        if after and after[0]["role"] == "assistant":
            rows.append({"follow_up": row["follow_up"], "previous": row["previous_reply"], "next": after[0]["content"] or ""})
    return rows


def share(part: int, whole: int) -> str:
    """A share with its Wilson interval."""
    low, high = wilson(part / whole, whole) if whole else (0.0, 1.0)
    return f"{part / whole:.3f} [{low:.3f}, {high:.3f}] (n = {whole:,})" if whole else "– (n = 0)"


def verdicts(rows: Iterable[Row], question: Callable[[Row], bool | None]) -> tuple[str, str]:
    """Share that the rule can tell, and share of yes among those."""
    found = [question(row) for row in rows]
    told = [verdict for verdict in found if verdict is not None]
    return share(len(told), len(found)), share(sum(told), len(told))


def main() -> None:
    """Print one table over all follow-ups, then one by aspect of the only wish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path)
    parser.add_argument("conversations", type=Path)
    given = parser.parse_args()
    rows = follow_ups(given.labels, given.conversations)
    print(f"{len(rows):,} re-attempts with feedback")
    read = [[asked.aspect for asked in requests(row["follow_up"])] for row in rows]
    for aspect in (None, Aspect.LENGTH, Aspect.FORMAT, Aspect.LANGUAGE):
        chosen = rows if aspect is None else [row for row, wishes in zip(rows, read, strict=True) if wishes == [aspect]]
        print(f"\n{'all' if aspect is None else f'only wish: {aspect}'}\n")
        for name, question in QUESTIONS.items():
            print(f"| {name} | " + " | ".join(verdicts(chosen, question)) + " |")


if __name__ == "__main__":
    main()
