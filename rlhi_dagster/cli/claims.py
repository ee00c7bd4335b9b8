"""What the evaluation can find and what a claim needs, before anything is run: the second half of ``rlhi plan``.

What belongs here: reading what is known from the lake, and words. What does not: the forecast itself (``evaluation.power``).
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from rlhi_dagster.base.failures import NotMadeError
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.evaluation import CONDITIONS
from rlhi_dagster.evaluation.power import ASSUMED, Spread, detectable_with, users_needed
from rlhi_dagster.evaluation.scores import spreads
from rlhi_dagster.profiles import Profile
from rlhi_dagster.training import recipes


def text(profile: Profile, difference: float) -> str:
    """Detectable differences and the users that one of ``difference`` needs, a line for each benchmark that has items.

    Spreads are measured on the judgements that are there, else assumed and said to be.

    Args:
        profile: Whose recipes make claims.
        difference: Between two recipes' shares, above 0.

    Raises:
        ValueError: ``difference`` is not above 0.
    """
    lake, made = Lake(root=str(profile.root / "lake")), recipes.comparisons(profile.arms)
    most = max(Counter(claim.family for claim in made).values(), default=1)
    try:
        items = lake.scan("eval_prompts").select("benchmark", pl.coalesce("user_id", "prompt_id").alias("user")).collect()
    except NotMadeError:
        items = pl.DataFrame(schema={"benchmark": pl.String(), "user": pl.String()})
    items = items.filter(~pl.col("benchmark").is_in([each.value for each in CONDITIONS]))
    try:
        measured = spreads(lake.scan("judgements").collect(), made)
    except NotMadeError:
        measured = {}
    lines = [
        f"What a comparison of two recipes finds four times out of five (two-sided, 5 %), alone and as one of a family of {most} claims:"
    ]
    if len(items):
        heads = f"{'benchmark':<22}{'items':>7}{'users':>7}{'detects':>9}{f'of {most}':>8}"
        lines.append(f"{heads}  {f'users for {difference:g}':<16}{f'of {most}':>7}  spread")
    for (benchmark,), of in items.group_by("benchmark", maintain_order=True):
        sizes = of.group_by("user").len()["len"].to_list()
        if len(sizes) < 2:
            lines.append(f"{benchmark:<22}{len(of):>7,}{len(sizes):>7,}  one user tells nothing of others")
            continue
        lines.append(_line(str(benchmark), sizes, difference, most, *_spread(measured.get(str(benchmark)))))
    if items.is_empty():
        each = profile.evaluation.requests_per_user
        alone, among = (f"{users_needed(difference, each, ASSUMED, claims):,}" for claims in (1, most))
        lines.append(
            f"eval_prompts is not made; a difference of {difference:g} needs {alone} users of {each} requests, "
            f"as one of {most} claims {among}"
        )
        lines.append(_spread(None)[1])
    return "\n".join(lines)


def _spread(measured: tuple[str, Spread] | None) -> tuple[Spread, str]:
    found = ASSUMED if measured is None else measured[1]
    how = "assumed" if measured is None else f"measured on {measured[0]}"
    return found, f"variance {found.variance:.2f}, within users {found.correlation:.2f} alike, {how}"


def _line(benchmark: str, sizes: list[int], difference: float, most: int, expected: Spread, how: str) -> str:
    can = [detectable_with(sizes, expected, claims) for claims in (1, most)]
    needed = [users_needed(difference, sum(sizes) / len(sizes), expected, claims) for claims in (1, most)]
    counts = f"{benchmark:<22}{sum(sizes):>7,}{len(sizes):>7,}{can[0]:>9.3f}{can[1]:>8.3f}"
    return f"{counts}  {needed[0]:<16,}{needed[1]:>7,}  {how}"
