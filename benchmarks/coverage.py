"""How often the project's intervals hold the truth, tests call equals different, and forecasts of what is found come true: simulated.

What belongs here: made-up clusters of known truth, the project's own functions, and plain alternatives beside them. What does not: a
threshold, and models. The results are recorded in ``benchmarks/README.md``. Run: ``python benchmarks/coverage.py`` (some minutes).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from rlhi_dagster.base.intervals import estimate_over_seeds, from_moments, holm, moments
from rlhi_dagster.evaluation.power import Spread, detectable_with

Floats = npt.NDArray[np.float64]
Interval = Callable[[Floats, Floats, bool], tuple[float, float]]

USERS = (5, 10, 20, 50, 100, 300)
SIZES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "6 each": lambda rng, users: np.full(users, 6.0),
    "1 to 50": lambda rng, users: rng.integers(1, 51, users).astype(float),
    "skewed, to 50": lambda rng, users: np.clip(np.round(rng.lognormal(1.2, 1.1, users)), 1, 50),
}
CORRELATIONS = (0.0, 0.1, 0.5)
CLAIMS = 6
"""Of a family."""


def rates(rng: np.random.Generator, mean: float, correlation: float, users: int) -> Floats:
    """A share for each user, drawn from a beta distribution with this mean; 0/1 items of a user then correlate so much."""
    if not correlation:
        return np.full(users, mean)
    weight = (1 - correlation) / correlation
    return rng.beta(mean * weight, (1 - mean) * weight, users)


def sums(rng: np.random.Generator, kind: str, counts: Floats, mean: float, correlation: float) -> Floats:
    """The sum of each user's items: 0 or 1, shares between, or differences of two recipes on the same items."""
    sizes, mine = counts.astype(int), rates(rng, mean, correlation, len(counts))
    if kind == "binary":
        return rng.binomial(sizes, mine).astype(float)
    if kind == "continuous":
        # Shares of four preferences met, each item's own rate spread about its user's.
        rated = (rng.beta(4 * rate + 1e-9, 4 * (1 - rate) + 1e-9, n) for rate, n in zip(mine, sizes, strict=True))
        return np.array([rng.binomial(4, items).sum() / 4 for items in rated])
    other = np.where(rng.random(len(counts)) < 0.5, mine, rates(rng, mean, correlation, len(counts)))
    return (rng.binomial(sizes, mine) - rng.binomial(sizes, other)).astype(float)


def project(counts: Floats, totals: Floats, is_share: bool) -> tuple[float, float]:
    """The interval of this project; where it gives none, everything."""
    found = from_moments(len(counts), moments(counts, totals), is_share=is_share)
    return (-np.inf, np.inf) if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)


def percentile(counts: Floats, totals: Floats, is_share: bool, resamples: int = 500) -> tuple[float, float]:
    """The percentile bootstrap of whole users, which the project had before."""
    if np.ptp(totals / counts) == 0:
        return project(counts, totals, is_share)
    drawn = np.random.default_rng(0).integers(0, len(counts), (resamples, len(counts)))
    low, high = np.quantile(totals[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def studentized(counts: Floats, totals: Floats, is_share: bool, resamples: int = 500) -> tuple[float, float]:
    """The bootstrap-t of whole users, with the linearised standard error."""
    if np.ptp(totals / counts) == 0:
        return project(counts, totals, is_share)

    def fit(n: Floats, k: Floats) -> tuple[Floats, Floats]:
        value = k.sum(-1) / n.sum(-1)
        return value, np.sqrt(((k - value[..., None] * n) ** 2).sum(-1) * n.shape[-1] / (n.shape[-1] - 1)) / n.sum(-1)

    drawn = np.random.default_rng(0).integers(0, len(counts), (resamples, len(counts)))
    value, error = fit(counts, totals)
    values, errors = fit(counts[drawn], totals[drawn])
    low, high = np.quantile((values - value) / np.where(errors > 1e-9, errors, np.inf), [0.025, 0.975])
    return float(value - high * error), float(value - low * error)


def linearised(correction: int) -> Interval:
    """CR1 with users - 1 degrees of freedom, or CR2 or CR3 with Bell and McCaffrey's; shares on the logit scale."""

    def interval(counts: Floats, totals: Floats, is_share: bool) -> tuple[float, float]:
        n, users = counts.sum(), len(counts)
        value = totals.sum() / n
        weight, factor = counts / n, users / (users - 1) if correction == 1 else 1.0
        squares = (totals - value * counts) ** 2 / (1 - weight) ** (correction - 1)
        error = np.sqrt(factor * squares.sum()) / n
        if error < 1e-8:
            return project(counts, totals, is_share)
        part = counts**2 / (1 - weight)
        freedom = users - 1 if correction == 1 else 1 / (((counts**2).sum() + (part.sum() ** 2 - (part**2).sum()) / n**2) / n**2)
        half = stats.t.ppf(0.975, freedom) * error
        if not is_share:
            return value - half, value + half
        middle, half = np.log(value / (1 - value)), half / (value * (1 - value))
        return float(1 / (1 + np.exp(half - middle))), float(1 / (1 + np.exp(-half - middle)))

    return interval


METHODS: dict[str, Interval] = {
    "project": project,
    "percentile bootstrap (before)": percentile,
    "studentized bootstrap": studentized,
    "CR1, t(users - 1)": linearised(1),
    "CR2, Bell-McCaffrey": linearised(2),
    "CR3, Bell-McCaffrey": linearised(3),
}


def shapes() -> Iterator[tuple[str, float]]:
    """What is estimated, and its mean."""
    yield from (("binary", mean) for mean in (0.02, 0.1, 0.5, 0.98))
    yield from (("continuous", mean) for mean in (0.1, 0.5, 0.9))
    yield from (("difference", mean) for mean in (0.1, 0.5))


def covered(rng: np.random.Generator, kind: str, mean: float, correlation: float, sizes: str, users: int, trials: int) -> dict[str, float]:
    """Share of trials in which each method's interval holds the truth, on the same made-up users."""
    truth, hits = 0.0 if kind == "difference" else mean, dict.fromkeys(METHODS, 0)
    for _ in range(trials):
        counts = SIZES[sizes](rng, users)
        totals = sums(rng, kind, counts, mean, correlation)
        for name, method in METHODS.items():
            low, high = method(counts, totals, kind != "difference")
            hits[name] += low <= truth <= high
    return {name: n / trials for name, n in hits.items()}


def users_tables(trials: int) -> None:
    """Coverage over users: by what is estimated for the project, then by method."""
    rng = np.random.default_rng(1)
    cells = {
        (kind, mean, correlation, sizes, users): covered(rng, kind, mean, correlation, sizes, users, trials)
        for (kind, mean), correlation, sizes, users in itertools.product(shapes(), CORRELATIONS, SIZES, USERS)
    }

    def told(found: Sequence[float]) -> str:
        return f"{np.mean(found):.3f} ({min(found):.3f})"

    heads = " | ".join(f"{users} users" for users in USERS)
    print(f"coverage of 95 % intervals, mean over shapes (lowest); {trials} trials a shape\n\n| | {heads} |\n|---|{'--:|' * len(USERS)}")
    for kind, mean in shapes():
        for correlation in CORRELATIONS:
            row = [
                told([found["project"] for key, found in cells.items() if key[:3] == (kind, mean, correlation) and key[4] == users])
                for users in USERS
            ]
            print(f"| {kind} {mean:g}, correlation {correlation:g} | {' | '.join(row)} |")
    print(f"\n| method | {heads} | shapes under 0.92 |\n|---|{'--:|' * (len(USERS) + 1)}")
    for name in METHODS:
        row = [told([found[name] for key, found in cells.items() if key[4] == users]) for users in USERS]
        print(f"| {name} | {' | '.join(row)} | {np.mean([found[name] < 0.92 for found in cells.values()]):.0%} |")


def seeds_table(trials: int) -> None:
    """Coverage over users and seeds, beside an interval over users only of the means over seeds."""
    rng = np.random.default_rng(2)
    spreads = ((0.3, 0.0, 0.1), (0.3, 0.02, 0.1), (0.3, 0.05, 0.1), (0.1, 0.1, 0.1), (0.0, 0.05, 0.0), (0.3, 0.05, 0.3))
    print("\n| seeds | users | standard deviation of users, seeds, both | users and seeds | users only |\n|--:|--:|---|--:|--:|")
    for seeds, users, (of_users, of_seeds, of_both) in itertools.product((2, 3, 5), (20, 60), spreads):
        crossed = alone = 0
        for _ in range(trials):
            user = np.repeat(np.arange(users), rng.integers(1, 12, users))
            everyone, seed = np.tile(user, seeds), np.repeat(np.arange(seeds), len(user))
            value = rng.normal(0, of_users, users)[everyone] + rng.normal(0, of_seeds, seeds)[seed]
            value += rng.normal(0, of_both, (users, seeds))[everyone, seed] + rng.normal(0, 0.4, len(everyone))
            value += np.tile(rng.normal(0, 0.3, len(user)), seeds)
            found = estimate_over_seeds(value, everyone.astype(str), seed.astype(str), is_share=False).mean
            low, high = project(np.bincount(user).astype(float), np.bincount(everyone, value) / seeds, False)
            crossed += found.ci_low <= 0 <= found.ci_high  # type: ignore[operator]
            alone += low <= 0 <= high
        print(f"| {seeds} | {users} | {of_users:g}, {of_seeds:g}, {of_both:g} | {crossed / trials:.3f} | {alone / trials:.3f} |")


def tests_table(trials: int) -> None:
    """How often one of several false claims is called different, and how often a difference of the forecast's size is found."""
    rng = np.random.default_rng(3)
    print(f"\n| users | correlation | one copy | any of {CLAIMS} copies, Holm | the same uncorrected | found, alone | found, of {CLAIMS} |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for users, correlation in itertools.product((10, 40, 150), (0.0, 0.2)):
        counts = np.full(users, 6.0)
        sizes, expected, hits = [6] * users, Spread(0.5, correlation), np.zeros(5)
        wanted = [detectable_with(sizes, expected, among) for among in (1, CLAIMS)]
        for _ in range(trials):
            false = [_tested(rng, counts, correlation, 0.0) for _ in range(CLAIMS)]
            alone, among = (_tested(rng, counts, correlation, difference) for difference in wanted)
            adjusted = [p for p in holm(false) if p is not None]
            beside = holm([among, *false[1:]])[0]
            hits += [p is not None and p < 0.05 for p in (false[0], min(adjusted), min(false), alone, beside)]
        print(f"| {users} | {correlation:g} | {' | '.join(f'{n / trials:.3f}' for n in hits)} |")


def _tested(rng: np.random.Generator, counts: Floats, correlation: float, difference: float) -> float:
    """P-value of a made-up comparison of two recipes, right in half of their replies or so much more and less."""
    sizes = counts.astype(int)
    left, right = (rng.binomial(sizes, rates(rng, 0.5 + half, correlation, len(sizes))) for half in (difference / 2, -difference / 2))
    found = from_moments(len(counts), moments(counts, (left - right).astype(float)), is_share=False)
    return 1.0 if found.p_value is None else found.p_value


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description="Coverage of the project's intervals, and errors and power of its tests, simulated.")
    parser.add_argument("--trials", type=int, default=500, help="trials a shape (default 500)")
    given = parser.parse_args()
    users_tables(given.trials)
    seeds_table(given.trials)
    tests_table(given.trials)


if __name__ == "__main__":
    main()
