"""What the report page is made from.

What belongs here: the inputs of ``page.render``, and how recipes stand and look on it. What does not: reading the lake (``write``) and
drawing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from rlhi_dagster.base.plots import SERIES, SYMBOLS, Mark
from rlhi_dagster.training import recipes
from rlhi_dagster.training.recipes import Recipe, Role

Frame = pl.DataFrame | pl.LazyFrame


def marks(arms: Mapping[str, Recipe]) -> dict[str, Mark]:
    """The look of every recipe: its family gives the colour, controls are hollow, and recipes that would look alike get other symbols."""
    names = recipes.ranked(arms)
    families = list(dict.fromkeys(arms[name].family for name in names))
    found, alike = {}, Counter[tuple[str, bool]]()
    for name in names:
        place, is_control = families.index(arms[name].family), arms[name].role is Role.CONTROL
        # The first family is that of the base; grey is its alone.
        tone = SERIES[place if place < len(SERIES) else 1 + (place - 1) % (len(SERIES) - 1)]
        found[name] = Mark(tone, is_control, tuple(SYMBOLS)[alike[tone, is_control] % len(SYMBOLS)])
        alike[tone, is_control] += 1
    return found


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything the page shows; a table that is ``None`` or empty becomes a line that says which asset to materialize.

    Big tables may be lazy: only the columns and counts that are shown get collected.

    Attributes:
        headline: What ran, as shown: "Profile", "Source", "Data version", "Seed" and so on to their values.
        simulated: What is simulated in this run, in plain words; empty if nothing is.
        deviations: Where this run departs from the paper, one sentence each; `code` in backticks is set as code.
        recipes: Every recipe; what it is, what it is compared with and how it is drawn.
        scores: ``SCORES`` of all recipes.
        benchmark_scores: ``BENCHMARK_SCORES`` of all recipes.
        judgements: ``JUDGEMENTS`` of all recipes.
        judge_quality: ``JUDGE_QUALITY``.
        eval_prompts: ``EVAL_PROMPTS``.
        responses: ``RESPONSES`` of all recipes.
        conversations: ``CONVERSATIONS``; their messages are not read.
        users: ``USERS``.
        quarantine: ``QUARANTINE``.
        reattempt_rates: ``REATTEMPT_RATES``.
        contextual_diversity: ``CONTEXTUAL_DIVERSITY``.
        feedback_labels: ``FEEDBACK_LABELS``.
        unmet_wishes: ``UNMET_WISHES``.
        min_users: Groups of complaints of fewer users are not shown.
        turns: ``TURNS``; of them only the messages that are examples of complaints are read.
        rewrites: ``REWRITES``.
        rewrite_pairs: ``REWRITE_PAIRS``.
        reward_pairs: ``REWARD_PAIRS``.
        explicit_pairs: ``EXPLICIT_PAIRS``.
        candidate_rewards: ``CANDIDATE_REWARDS``.
        preference_pairs: ``PREFERENCE_PAIRS``.
        checkpoints: Recipe to its checkpoint's manifest; nothing in it is needed.
        show_samples: Whether to print conversations, beside examples of complaints; for simulated text only.
        is_of_run: Whether there are tables of a run beside the page; without, no command on them is named, and no figure of the paper.
    """

    headline: Mapping[str, str] = field(default_factory=dict)
    simulated: str = ""
    deviations: Sequence[str] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    scores: Frame | None = None
    benchmark_scores: Frame | None = None
    judgements: Frame | None = None
    judge_quality: Frame | None = None
    eval_prompts: Frame | None = None
    responses: Frame | None = None
    conversations: Frame | None = None
    users: Frame | None = None
    quarantine: Frame | None = None
    reattempt_rates: Frame | None = None
    contextual_diversity: Frame | None = None
    feedback_labels: Frame | None = None
    unmet_wishes: Frame | None = None
    min_users: int = 5
    turns: Frame | None = None
    rewrites: Frame | None = None
    rewrite_pairs: Frame | None = None
    reward_pairs: Frame | None = None
    explicit_pairs: Frame | None = None
    candidate_rewards: Frame | None = None
    preference_pairs: Frame | None = None
    checkpoints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    show_samples: bool = False
    is_of_run: bool = True

    def ranked(self, present: Iterable[str]) -> list[str]:
        """The recipes in ``present`` as they stand on the page; those without a file any more come last."""
        order = recipes.ranked(self.recipes)
        return sorted(set(present), key=lambda name: (order.index(name) if name in order else len(order), name))

    def mark(self, recipe: str) -> Mark:
        """How a recipe is drawn."""
        return marks(self.recipes).get(recipe, Mark("--muted"))

    def is_control(self, recipe: str) -> bool:
        """Whether a recipe is there as a control."""
        return recipe in self.recipes and self.recipes[recipe].role is Role.CONTROL

    def leading(self, present: Iterable[str]) -> list[str]:
        """The base and the treatments in ``present``, as they stand on the page."""
        found = {name for name, recipe in self.recipes.items() if name == recipes.BASE or recipe.role is Role.TREATMENT}
        return self.ranked(found & set(present))

    def table(self, name: str, columns: Sequence[str]) -> pl.DataFrame | None:
        """The named table's ``columns``, or ``None`` if it is missing or has no rows."""
        frame: Frame | None = getattr(self, name)
        if frame is None:
            return None
        found = frame.lazy().select(columns).collect()
        return None if found.is_empty() else found
