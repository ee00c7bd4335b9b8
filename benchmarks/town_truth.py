"""How well the preference stage recovers the truth about the sample town: verdicts, persona lines, rewrites, pairs.

What belongs here: every table of a finished run of the sample scored against what the simulation knows, with intervals clustered by user.
What does not: the method, which never sees the truth, and thresholds. The results are recorded in ``docs/results/town_truth.md``. Run
after ``make demo``: ``python benchmarks/town_truth.py`` (``RLHI_DATA`` and ``RLHI_PROFILE`` choose the run).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.preferences import Strategy
from rlhi_dagster.preferences.criticism_fits import follow_up_applies
from rlhi_dagster.simulation.town import truth
from rlhi_dagster.simulation.town.dialogue import ASKS
from rlhi_dagster.simulation.town.style import ASPECTS, Style, read, topic_of

_WISHES = {text: wish for wish, texts in ASKS.items() for text in texts}
"""What each of the town's wordings asks for: (aspect, value)."""
REWARD_REASONS = {"reward_below_floor", "reward_margin_too_small", "reward_failed"}


@dataclass(frozen=True, slots=True)
class Town:
    """A finished run and the truth about its users."""

    lake: Lake
    preferences: dict[str, Style]

    def table(self, name: str) -> list[dict[str, Any]]:
        """Rows of a table."""
        return self.lake.scan(name).collect().to_dicts()


def share(rows: Iterable[tuple[str, bool]]) -> str:
    """A share with its interval and n, of (user, whether it holds)."""
    items = list(rows)
    if not items:
        return "– (n = 0)"
    found = estimate([float(holds) for _, holds in items], [user for user, _ in items], is_share=True)
    return f"{found.value:.3f} [{found.ci_low:.3f}, {found.ci_high:.3f}] (n = {found.n:,})"


def applies(follow_up: str, reply: str) -> bool | None:
    """Whether a wish of the town is missing from a reply; ``None`` if the text is no wish of one aspect or the reply is broken."""
    wish, reading = _WISHES.get(follow_up), read(reply)
    return None if wish is None or reading is None else reading.style.value(wish[0]) != wish[1]


def verdicts(town: Town) -> list[tuple[str, str]]:
    """Precision and recall of "the criticism fits the regenerated reply", by the run's judge and by the general rule."""
    items: list[tuple[str, bool, bool | None, bool | None]] = []
    for row in town.table("wildllamachat"):
        known = applies(row["follow_up"] or "", row["reply"] or "")
        if known is not None:
            rule = follow_up_applies(row["follow_up"], row["reply"], row["logged_reply"])
            items.append((row["user_id"], known, row["follow_up_applies"], rule))
    lines = [("follow-ups that truly fit the regenerated reply", share((user, known) for user, known, _, _ in items))]
    for name, at in (("the run's judge", 2), ("the general rule", 3)):
        told = [(item[0], item[1], item[at]) for item in items]
        lines += [
            (f"{name}: can tell", share((user, said is not None) for user, _, said in told)),
            (f"{name}: precision of `applies`", share((user, known) for user, known, said in told if said)),
            (f"{name}: recall of `applies`", share((user, bool(said)) for user, known, said in told if known)),
        ]
    return lines


def personas(town: Town) -> list[tuple[str, str]]:
    """Precision of persona lines, and how much of what a user asked for is known at the end."""
    from rlhi_dagster.feedback import Aspect
    from rlhi_dagster.feedback.aspects import LINES

    lines = [row for row in town.table("personas") if row["slot"] in ASPECTS and row["user_id"] in town.preferences]

    def is_true(row: dict[str, Any]) -> bool:
        return bool(row["line"] == LINES[Aspect(row["slot"])][town.preferences[row["user_id"]].value(row["slot"])])

    current = {(row["user_id"], row["slot"]): is_true(row) for row in lines if row["valid_until"] is None}
    messages = town.table("turns")
    asked = {(row["user_id"], _WISHES[row["prompt"]][0]) for row in messages if row["prompt"] in _WISHES and row["turn"] > 1}
    users = sorted({row["user_id"] for row in messages} & set(town.preferences))
    return [
        ("lines that are true", share((row["user_id"], is_true(row)) for row in lines)),
        ("current lines that are true", share((user, holds) for (user, _), holds in current.items())),
        ("preferences asked for in a follow-up that are known, and right, at the end", share((k[0], current.get(k, False)) for k in asked)),
        ("all preferences that are known, and right, at the end", share((u, current.get((u, a), False)) for u in users for a in ASPECTS)),
    ]


def rewrites(town: Town) -> list[tuple[str, str]]:
    """Whether rewrites do what the feedback asks, by strategy, and how right the pair judge is."""
    lines = []
    rows = [row for row in town.table("rewrites") if row["rewrite"] is not None and row["feedback"] in _WISHES]

    def meets(row: dict[str, Any]) -> bool:
        missing = applies(row["feedback"], row["rewrite"])
        return missing is False

    for strategy in Strategy:
        own = [row for row in rows if row["strategy"] == strategy.value]
        lines += [
            (f"`{strategy}`: legible", share((row["user_id"], read(row["rewrite"]) is not None) for row in own)),
            (f"`{strategy}`: meet the feedback", share((row["user_id"], meets(row)) for row in own)),
        ]
    judged = [row for row in rows if row["meets_feedback"] is not None]
    lines += [
        ("the run's judge: precision of `meets`", share((r["user_id"], meets(r)) for r in judged if r["meets_feedback"] >= 0.5)),
        ("the run's judge: recall of `meets`", share((r["user_id"], r["meets_feedback"] >= 0.5) for r in judged if meets(r))),
    ]
    return lines


def agrees(town: Town, row: dict[str, Any]) -> bool | None:
    """Whether chosen meets more of the user's hidden preferences than rejected; ``None`` for users without any."""
    preference = town.preferences.get(row["user_id"])
    if preference is None:
        return None
    asked = row["prompt"][-1]["content"]
    met = [_met(preference, asked, row[side]) for side in ("chosen", "rejected")]
    return met[0] > met[1]


def _met(preference: Style, asked: str, reply: str) -> float:
    return truth.verdict(preference, asked if topic_of(asked) else "", reply).preferences_met


Filter = Callable[[dict[str, Any]], bool]


def pairs(town: Town, name: str, group: str) -> list[tuple[str, str]]:
    """Precision (kept pairs that agree) and recall (agreeing pairs that are kept), before and after each kind of filter, by group."""
    lines = []
    rows = [(row, agrees(town, row)) for row in town.table(name) if row["chosen"]]
    rows = [(row, holds) for row, holds in rows if holds is not None]
    stages: list[tuple[str, Filter]] = [("no filter", lambda row: True)]
    if name == "rewrite_pairs":
        judge, reward = {"does_not_meet_feedback"}, REWARD_REASONS
        stages += [
            ("all but judge and reward model", lambda row: not set(row["drop_reasons"]) - judge - reward),
            ("all but the reward model", lambda row: not set(row["drop_reasons"]) - reward),
        ]
    stages.append(("kept", lambda row: row["is_kept"]))
    for value in sorted({row[group] for row, _ in rows}):
        own = [(row, bool(holds)) for row, holds in rows if row[group] == value]
        for label, passes in stages:
            kept = [(row["user_id"], holds) for row, holds in own if passes(row)]
            found = share((row["user_id"], passes(row)) for row, holds in own if holds)
            lines.append((f"`{value}`, {label}", f"{share(kept)} | {found}"))
    return lines


def sides(town: Town) -> list[tuple[str, str]]:
    """How often either side of the kept training pairs meets every preference, by source: what an imitator of it would come to.

    Opening requests only, which is what checkpoints are evaluated on.
    """
    rows = [row for row in town.table("preference_pairs") if row["is_kept"] and row["split"] == "train" and len(row["prompt"]) == 1]
    rows = [row for row in rows if row["user_id"] in town.preferences]

    def meets_all(row: dict[str, Any], side: str) -> bool:
        return _met(town.preferences[row["user_id"]], row["prompt"][-1]["content"], row[side]) == 1

    lines = []
    for source in sorted({row["source"] for row in rows}):
        own = [row for row in rows if row["source"] == source]
        chosen, rejected = (share((row["user_id"], meets_all(row, side)) for row in own) for side in ("chosen", "rejected"))
        lines.append((f"`{source}`", f"{chosen} | {rejected}"))
    return lines


def thumbs(town: Town) -> list[tuple[str, str]]:
    """Whether thumbs say what the hidden preference says: up for a reply that meets all of it, down for one that does not."""
    replies = {row["reply_id"]: (row["prompt"], row["reply"]) for row in town.table("turns")}
    given = [row for row in town.table("explicit_feedback") if row["kind"] == "thumb" and row["user_id"] in town.preferences]
    said = [(row, _met(town.preferences[row["user_id"]], *replies[row["reply_id"]]) == 1) for row in given]
    return [
        ("thumbs up on replies that meet all preferences", share((row["user_id"], holds) for row, holds in said if row["value"] > 0)),
        ("thumbs down on replies that do not", share((row["user_id"], not holds) for row, holds in said if row["value"] < 0)),
    ]


def labels(town: Town) -> list[tuple[str, str]]:
    """Precision and recall of `reattempt_with_feedback` on the town."""
    file = profiles.project_path(str(profiles.current().truth)) / "labels.parquet"
    known = {(row["conversation_hash"], row["message_index"]): row["label"] for row in pl.read_parquet(file).to_dicts()}
    wanted = Feedback.REATTEMPT_WITH_FEEDBACK.value
    items = []
    for row in town.table("feedback_labels"):
        conversation, index = row["turn_id"].rsplit(":", 1)
        label = known.get((conversation, int(index)))
        if label is not None:
            items.append((row["user_id"], label == wanted, row["label"] == wanted))
    return [
        ("`reattempt_with_feedback`: precision", share((user, known) for user, known, said in items if said)),
        ("`reattempt_with_feedback`: recall", share((user, said) for user, known, said in items if known)),
    ]


def main() -> None:
    """Print the tables."""
    argparse.ArgumentParser(description="Score a finished run of the sample against the truth about its users.").parse_args()
    profile = profiles.current()
    if profile.truth is None:
        raise SystemExit(f"profile {profile.name} has no truth to score against")
    known = truth.preferences(profiles.project_path(profile.truth) / "preferences.parquet", profiles.salt(profile))
    town = Town(Lake(root=str(profiles.data_root() / "lake")), known)
    for title, rows in (
        ("Labels", labels(town)),
        ("Applicability", verdicts(town)),
        ("Personas", personas(town)),
        ("Rewrites", rewrites(town)),
        ("Thumbs", thumbs(town)),
    ):
        print(f"\n{title}\n\n| | share [95 % interval] |\n|---|---|")
        print("\n".join(f"| {label} | {value} |" for label, value in rows))
    of_table = (("rewrite_pairs", "strategy"), ("reward_pairs", "condition"), ("explicit_pairs", "kind"), ("explicit_pairs", "evidence"))
    for name, group in (*of_table, ("preference_pairs", "source")):
        print(f"\n{name}, by {group}\n\n| | of these, agree with the hidden preference | of those that agree, are in |\n|---|---|---|")
        print("\n".join(f"| {label} | {value} |" for label, value in pairs(town, name, group)))
    print("\nSides\n\n| | preferred replies that meet all preferences | rejected ones |\n|---|---|---|")
    print("\n".join(f"| {label} | {value} |" for label, value in sides(town)))


if __name__ == "__main__":
    main()
