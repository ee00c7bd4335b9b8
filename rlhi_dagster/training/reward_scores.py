"""How often a reward model prefers the preferred reply, and what the persona has to do with it.

What belongs here: which pairs are scored under which persona, and accuracies with intervals. What does not: training
(``workers.train_reward``) and scoring (``workers.score``).

Held-out pairs are scored three times: under the user's own persona, another user's, and none. A reward that is no better under
``own`` than under ``shuffled`` is not about the user. Sets of human preferences know no personas and are scored under none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from rlhi_dagster.base import plots
from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.base.tables import MESSAGES, REWARD_MODEL_SCORES
from rlhi_dagster.engines.base import RewardAnswer, RewardRequest
from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona
from rlhi_dagster.personas.donors import donors
from rlhi_dagster.training.human_preferences import HumanPairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD_OUT = "rewrite_pairs"
"""``pairs`` of the rewrites of users that the reward model was not trained on."""
CHANCE = 0.5
_SMALL_MILLIONS = 1_000
ROWS = pl.Schema(
    {
        "pairs": pl.String(),
        "condition": pl.String(),
        "pair_id": pl.String(),
        "cluster": pl.String(),
        "seen": pl.String(),
        "prompt": MESSAGES,
        "chosen": pl.String(),
        "rejected": pl.String(),
    }
)
"""A pair under a persona condition: ``cluster`` is the user, or the pair where none is known; ``seen`` the persona shown."""


def held_out_rows(held_out: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Every held-out pair under every condition; without a second user there is no ``shuffled``.

    Args:
        held_out: ``pair_sets.reward_model_pairs`` of users that the model was not trained on.
        seed: Of who lends a persona to whom.

    Returns:
        ``ROWS``.
    """
    lent = donors(held_out.unique("turn_id").select("turn_id", "user_id", "persona", month=pl.lit("any")), seed)
    base = held_out.join(lent, on="turn_id", how="left").with_columns(pairs=pl.lit(HELD_OUT), cluster=pl.col("user_id"))
    seen = {"own": pl.col("persona"), "shuffled": pl.col("donor_persona"), "none": pl.lit("")}
    frames = [base.with_columns(condition=pl.lit(condition), seen=persona) for condition, persona in seen.items()]
    return pl.concat([frame.filter(pl.col("seen").is_not_null()).select(list(ROWS)) for frame in frames]).sort("condition", "pair_id")


def human_rows(sets: Sequence[HumanPairs]) -> pl.DataFrame:
    """``ROWS`` of sets of human preferences, under no persona."""
    shown = {"condition": pl.lit("none"), "cluster": pl.col("pair_id"), "seen": pl.lit("")}
    frames = [each.pairs.with_columns(pairs=pl.lit(each.name), **shown).select(list(ROWS)) for each in sets]
    return pl.concat(frames) if frames else pl.DataFrame(schema=ROWS)


def reward_requests(rows: pl.DataFrame, placement: PersonaPlacement) -> list[RewardRequest]:
    """Two requests for each of ``ROWS``: the preferred reply, then the other."""
    return [
        RewardRequest([*with_persona(row["prompt"], row["seen"], placement), {"role": "assistant", "content": row[side]}])
        for row in rows.to_dicts()
        for side in ("chosen", "rejected")
    ]


def reward_model_scores(rows: pl.DataFrame, answers: Sequence[RewardAnswer], sets: Sequence[HumanPairs], reward_model: str) -> pl.DataFrame:
    """Accuracy on each set of pairs under each condition.

    Args:
        rows: ``ROWS``.
        answers: To ``reward_requests`` of these rows.
        sets: The sets of human preferences among them.
        reward_model: Identity of the reward model.

    Returns:
        ``REWARD_MODEL_SCORES``, a row a cell, without pairs too.
    """
    chosen = pl.Series("chosen_reward", [answer.reward for answer in answers[::2]], dtype=pl.Float64())
    rejected = pl.Series("rejected_reward", [answer.reward for answer in answers[1::2]], dtype=pl.Float64())
    is_tie = pl.col("chosen_reward") == pl.col("rejected_reward")
    is_right = pl.when(is_tie).then(0.5).otherwise((pl.col("chosen_reward") > pl.col("rejected_reward")).cast(pl.Float64))
    scored = rows.with_columns(chosen, rejected).drop_nulls(["chosen_reward", "rejected_reward"]).with_columns(value=is_right)
    cells = [*((HELD_OUT, condition) for condition in ("own", "shuffled", "none")), *((each.name, "none") for each in sets)]
    found = []
    for pairs, condition in cells:
        cell = scored.filter(pl.col("pairs") == pairs, pl.col("condition") == condition)
        share = estimate(cell["value"], cell["cluster"], is_share=True)
        measured = {"value": share.value, "n": share.n, "users": share.clusters, "ci_low": share.ci_low, "ci_high": share.ci_high}
        found.append({"pairs": pairs, "condition": condition, **measured, "reward_model": reward_model})
    return REWARD_MODEL_SCORES.conform(pl.DataFrame(found, schema=REWARD_MODEL_SCORES.schema))


def errors(answers: Sequence[RewardAnswer]) -> dict[str, int]:
    """Requests without a reward, by the reason's first word."""
    return dict(Counter(answer.error.split(":")[0] for answer in answers if answer.error).most_common())


def other_persona_fraction(rows: pl.DataFrame) -> float | None:
    """Share of the ``shuffled`` pairs whose borrowed persona reads otherwise than the user's own."""
    of = {condition: rows.filter(condition=condition).select("pair_id", "seen") for condition in ("own", "shuffled")}
    both = of["own"].join(of["shuffled"], on="pair_id", how="inner", suffix="_shuffled")
    return both.select((pl.col("seen") != pl.col("seen_shuffled")).mean()).item() if len(both) else None


def reward_model_prefers_preferred(scores: pl.LazyFrame) -> Finding:
    """On users that it was not trained on, and under their own persona, the reward model is better than chance: the interval is above 0.5.

    Args:
        scores: ``REWARD_MODEL_SCORES``.
    """
    rows = scores.filter(pl.col("pairs") == HELD_OUT, pl.col("condition") == "own").collect().to_dicts()
    found: dict[str, Any] = rows[0] if rows else {"value": None, "ci_low": None, "n": 0}
    numbers = {name: found[name] for name in ("value", "ci_low", "n") if found[name] is not None}
    return Finding(found["ci_low"] is not None and found["ci_low"] > CHANCE, {"chance": CHANCE, **numbers})


def backbone(manifest: dict[str, Any]) -> str:
    """One sentence on how large the reward model is."""
    if "model" not in manifest:
        return f"There is none: {manifest['why']}."
    if "parameters" not in manifest:
        return f"Not trained here: {manifest['model']['name']} at {manifest['model']['revision']}."
    millions = manifest["parameters"] / 1e6
    trained = f"Trained here on {manifest['pairs']:,} pairs; the backbone has {millions:,.1f} million parameters."
    small = "That is small: its accuracy says whether the method works here, not what a reward model of billions of parameters reaches."
    return f"{trained} {small}" if millions < _SMALL_MILLIONS else trained


def drawing(scores: pl.DataFrame) -> Figure:
    """Accuracies with their intervals, one line a cell, beside chance."""
    rows = scores.filter(pl.col("n") > 0).sort("pairs", "condition", descending=True).to_dicts()
    lines = [(f"{row['pairs']}, {row['condition']} (n = {row['n']:,})", row["value"], row["ci_low"], row["ci_high"]) for row in rows]
    figure, axes = plots.intervals(lines, "preferred reply has the higher reward")
    axes.axvline(CHANCE, linewidth=0.8, linestyle=":", color=plots.MUTED)
    axes.set_xlim(0, 1)
    return figure
