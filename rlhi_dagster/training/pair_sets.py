"""Which pairs a recipe trains on: its sources' kept ones, equally many for every recipe, with the persona where the recipe shows it.

What belongs here: drawing pairs. What does not: whether they are short enough to train on (``budget.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from rlhi_dagster.base.control_tokens import escaped, escaped_messages
from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.personas.conditioning import PersonaPlacement, with_persona
from rlhi_dagster.preferences import Source, Strategy
from rlhi_dagster.preferences.merge import with_split
from rlhi_dagster.training.follow_ups import FollowUps
from rlhi_dagster.training.recipes import Recipe
from rlhi_dagster.training.thumbs import Thumbs

TRAINING_ROWS = pl.Schema({"pair_id": pl.String(), "prompt": MESSAGES, "chosen": pl.String(), "rejected": pl.String()})
"""What a training worker reads; see ``SIDES``."""
_TABLES = {
    Source.REWRITES: "rewrite_pairs",
    Source.REWRITES_FROM_SCRATCH: "rewrite_pairs",
    Source.REWRITES_LOGGED: "rewrite_pairs",
    Source.REWARDS: "reward_pairs",
    Source.REWARDS_SHUFFLED: "reward_pairs",
    Source.REWARDS_NONE: "reward_pairs",
    Source.REASONING: "reasoning_pairs",
    Source.EDITS: "explicit_pairs",
    Source.SIBLINGS: "explicit_pairs",
    Source.DRAFTS: "explicit_pairs",
}
"""Where the pairs of a source come from, before ``preference_pairs``."""
Origin = Source | Thumbs | FollowUps
"""Where a training row comes from."""
SIDES = ("chosen", "rejected")
"""Of a training row. A pair has both; of an unpaired example, a reply with a thumb or a follow-up, one is null."""


@dataclass(frozen=True, slots=True)
class PairSets:
    """The pairs of one recipe.

    Attributes:
        train: ``TRAINING_ROWS`` to train on.
        validation: ``TRAINING_ROWS`` to validate on.
    """

    train: pl.DataFrame
    validation: pl.DataFrame

    @property
    def by_split(self) -> dict[str, pl.DataFrame]:
        """The two by the name of their split."""
        return {"train": self.train, "validation": self.validation}


class NoDataError(ValueError):
    """A run has nothing to train on; the message says why of every recipe."""


def drawn_sets(
    pairs: pl.DataFrame, recipes: Mapping[str, Recipe], most: int | None, validation_fraction: float, seed: int
) -> dict[str, PairSets]:
    """What each recipe trains and validates on: equally many pairs for every recipe, or all of its sources' where it says so.

    Args:
        pairs: ``PREFERENCE_PAIRS``, with examples as ``examples.as_pairs`` and ``follow_ups.as_pairs`` make rows of them; those that are
            not kept are passed over.
        recipes: Every recipe by name; those without sources get no sets. Of one with rounds the sets are what it would train on without:
            requests that its rounds sample from, with replies of the starting policy.
        most: Most training pairs of a recipe that takes equally many; ``None`` for no limit.
        validation_fraction: Validation pairs as a share of the training pairs.
        seed: Of the draw.
    """
    count = equal_count(pairs, recipes, most)
    counts: dict[str, dict[str, int | None]] = {
        "equal": {"train": count, "validation": round(count * validation_fraction)},
        "all": {"train": None, "validation": None},
    }
    return {
        name: PairSets(**{split: pair_set(pairs, recipe, split, n, seed) for split, n in counts[recipe.pairs].items()})
        for name, recipe in recipes.items()
        if recipe.sources
    }


def kept_sets(pairs: pl.DataFrame, recipe: Recipe, seed: int) -> PairSets:
    """All kept pairs of a recipe's sources, in drawn order."""
    return PairSets(pair_set(pairs, recipe, "train", None, seed), pair_set(pairs, recipe, "validation", None, seed))


def equal_count(pairs: pl.DataFrame, recipes: Mapping[str, Recipe], most: int | None) -> int:
    """Training pairs of each recipe that takes equally many: what the scarcest of them can have, at most ``most``.

    A recipe with a source that has no kept training pair cannot train at all (`without_data`) and takes nothing from the others. Nor does
    one on follow-ups, which has as many as the others, or all that there are if those are fewer; alone it takes what it can have.
    """
    there = _kept_by_source(pairs)
    arms = [recipe for recipe in recipes.values() if recipe.sources and recipe.pairs == "equal" and all(map(there.get, recipe.sources))]
    arms = [arm for arm in arms if arm.method != "sdpo"] or arms
    return min([*(_capacity([there[source] for source in arm.sources]) for arm in arms), *([most] if most else [])], default=0)


def without_data(pairs: pl.DataFrame, recipes: Mapping[str, Recipe]) -> dict[str, str]:
    """Recipes that cannot train, and why not, in a sentence for each source that has nothing to train on.

    One rule for all methods: such a recipe is left out of a run, which says so, unless the run has no other to train.

    Args:
        pairs: ``PREFERENCE_PAIRS``, and examples as ``examples.as_pairs`` and ``follow_ups.as_pairs`` make rows of them.
        recipes: Those of a run, by name.

    Raises:
        NoDataError: None of those that train has anything to train on.
    """
    there = pairs.filter("is_kept", split="train").group_by("source").agg(pl.len(), *(pl.col(side).count() for side in SIDES))
    counts = {source: (n, up, down) for source, n, up, down in there.iter_rows()}
    told: dict[str, list[str]] = {}
    for name, recipe in recipes.items():
        for source in recipe.sources:
            n, up, down = counts.get(source, (0, 0, 0))
            if isinstance(source, Thumbs) and not (up and down):
                kinds = f"{up:,} thumbs up and {down:,} thumbs down to train on, and KTO needs both"
                told.setdefault(name, []).append(f"recipe {name}: {kinds}; see explicit_feedback, and the drop reasons in thumb_examples")
            elif not n and isinstance(source, FollowUps):
                told.setdefault(name, []).append(
                    f"recipe {name}: no kept training example of source {source}; see turns, and the drop reasons in follow_up_examples"
                )
            elif not n:
                where = f"see the drop reasons in {_TABLES[Source(source)]} and preference_pairs"
                told.setdefault(name, []).append(f"recipe {name}: no kept training pair of source {source}; {where}")
    if told and len(told) == sum(bool(recipe.sources) for recipe in recipes.values()):
        raise NoDataError("; ".join(sentence for sentences in told.values() for sentence in sentences))
    return {name: "; ".join(sentences) for name, sentences in told.items()}


def shares(count: int, sources: Sequence[Origin]) -> dict[Origin, int]:
    """How many pairs of each source make ``count``: equally many, the rest of the first."""
    each, rest = divmod(count, len(sources))
    return {source: each + (rest if place == 0 else 0) for place, source in enumerate(sources)}


def pair_set(
    pairs: pl.DataFrame,
    recipe: Recipe,
    split: str,
    count: int | None,
    seed: int,
    placement: PersonaPlacement = PersonaPlacement.SYSTEM,
) -> pl.DataFrame:
    """The recipe's kept pairs of a split: ``count`` of them (``None``: all), drawn and ordered by digest of id and seed.

    Of several sources equally many are drawn, the rest of the first. Control tokens in texts are text (``base/control_tokens.py``).

    Returns:
        ``TRAINING_ROWS``.
    """
    found = pairs.filter("is_kept", pl.col("source").is_in(recipe.sources), pl.col("split") == split)
    drawn = found.with_columns(draw=pl.Series([digest_of(pair_id, seed) for pair_id in found["pair_id"]], dtype=pl.String())).sort("draw")
    if count is not None:
        wanted = shares(count, recipe.sources)
        drawn = pl.concat([drawn.filter(pl.col("source") == source).head(n) for source, n in wanted.items()]).sort("draw")
    rows = [
        {
            "pair_id": row["pair_id"],
            "prompt": escaped_messages(with_persona(row["prompt"], row["persona"] if recipe.persona == "own" else "", placement)),
            **{side: row[side] if row[side] is None else escaped(row[side]) for side in SIDES},
        }
        for row in drawn.select("pair_id", "prompt", "persona", "chosen", "rejected").to_dicts()
    ]
    return pl.DataFrame(rows, schema=TRAINING_ROWS)


def reward_model_pairs(unscored: pl.DataFrame, users: pl.DataFrame, validation_fraction: float) -> pl.DataFrame:
    """The pairs that a reward model can be trained or tried on: rewrites of opening requests that no rule and no judge drops.

    Opening requests are what the reward model ranks candidates for. With a history in view it learns to read the wishes there and not
    the persona. Logged replies count as well as rewrites with the feedback in view: what a reward model learns is what users want,
    whoever wrote it.

    Args:
        unscored: What ``rewrites.unscored_pairs`` gives; its control, strategy `scratch`, is not used.
        users: ``USERS``; ``split_group`` decides who validates together.
        validation_fraction: Share of groups of users whose pairs no reward model is trained on.

    Returns:
        The rows with ``split``, `train` or `validation`.
    """
    is_sound = (pl.col("strategy") != Strategy.SCRATCH.value) & (pl.col("drop_reasons").list.len() == 0)
    found = unscored.filter(is_sound, pl.col("prompt").list.len() == 1)
    marked = found.with_columns(source=pl.lit(Source.REWRITES.value), is_kept=pl.lit(True))
    return with_split(marked, users, validation_fraction)


def reward_model_sets(pairs: pl.DataFrame, most: int | None, seed: int, placement: PersonaPlacement) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Training and validation rows of the reward model, with the persona where it will be asked with it.

    Args:
        pairs: What ``reward_model_pairs`` gives.
        most: Most training pairs; ``None`` for no limit.
        seed: Of the draw.
        placement: Where the model sees the persona.

    Returns:
        Two frames of ``TRAINING_ROWS``.
    """
    recipe = Recipe(description="reward model", method="dpo", sources=(Source.REWRITES,))
    train = pair_set(pairs, recipe, "train", most, seed, placement)
    return train, pair_set(pairs, recipe, "validation", None, seed, placement)


def _kept_by_source(pairs: pl.DataFrame) -> dict[str, int]:
    """Kept training pairs by source."""
    return dict(pairs.filter("is_kept", pl.col("split") == "train").group_by("source").len().iter_rows())


def _capacity(counts: Sequence[int]) -> int:
    """The most pairs that can be drawn of sources with so many, by `shares`."""
    scarcest = min(counts)
    return len(counts) * scarcest + min(len(counts) - 1, counts[0] - scarcest)
