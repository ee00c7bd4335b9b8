"""Diversity of vectors: exact against the definitions, independent of order, intervals that cover, rankings that say what they know."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rlhi_dagster.base.tables import CONTEXTUAL_DIVERSITY
from rlhi_dagster.feedback.diversity import comparison, entropies
from rlhi_dagster.feedback.diversity.measures import Embedded, Verdict, distance, measure, ranking


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cloud(name: str, spread: float, items: int = 80, users: int | None = None, seed: int = 4, **settings) -> Embedded:
    """Items around one direction: the larger the spread, the further apart they are."""
    generator = np.random.default_rng(seed)
    owners = [f"u{item}" for item in (range(items) if users is None else generator.integers(0, users, items))]
    return Embedded(name, owners, generator.normal(size=(items, 16)) * spread + 0.7, **settings)


def shuffled(corpus: Embedded, seed: int = 9) -> Embedded:
    order = np.random.default_rng(seed).permutation(len(corpus.vectors))
    return Embedded(corpus.name, [f"{corpus.user_ids[item]} of another salt" for item in order], corpus.vectors[order], corpus.is_part)


def test_distance_agrees_with_all_pairs() -> None:
    corpus = cloud("town", 1.0, users=20)
    vectors = unit(corpus.vectors)
    pairs = [1 - vectors[i] @ vectors[j] for i, j in itertools.combinations(range(len(vectors)), 2)]
    found = distance(corpus, seed=0)
    assert found.value == pytest.approx(np.mean(pairs), abs=1e-12)
    assert found.ci_low < found.value < found.ci_high


def test_the_interval_of_distance_does_not_count_an_item_against_its_own_copy() -> None:
    """Mutually orthogonal items have distance 1 whatever is drawn; copies at distance 0 would pull the interval below."""
    found = distance(Embedded("axes", [f"u{i}" for i in range(12)], np.eye(12)), seed=0)
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((1.0, 1.0, 1.0))


def test_distance_of_too_little_or_of_nonsense() -> None:
    assert distance(Embedded("one", ["u"], np.ones((1, 4))), seed=0).value is None
    alone = distance(Embedded("user", ["u", "u"], np.eye(2)), seed=0)
    assert (alone.value, alone.ci_low) == (1.0, None)
    with pytest.raises(ValueError, match="embedding 1 "):
        distance(Embedded("zero", ["u", "v"], np.array([[1.0, 0.0], [0.0, 0.0]])), seed=0)
    with pytest.raises(ValueError, match="3 user ids"):
        distance(Embedded("lengths", ["u", "v", "w"], np.eye(2)), seed=0)


@pytest.mark.parametrize(("items", "dimensions"), [(40, 8), (8, 40)])
def test_vendi_score_agrees_with_the_matrix_of_all_pairs(items: int, dimensions: int) -> None:
    vectors = unit(np.random.default_rng(1).normal(size=(items, dimensions)) + 0.5)
    eigenvalues = np.linalg.eigvalsh(vectors @ vectors.T / items)
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    assert entropies.vendi_score(vectors) == pytest.approx(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-9)


def test_identical_items_count_as_one_and_orthogonal_ones_as_many() -> None:
    same = np.tile(unit(np.arange(1.0, 9.0)[None]), (30, 1))
    assert distance(Embedded("same", [f"u{i}" for i in range(30)], same), seed=0).value == pytest.approx(0.0, abs=1e-12)
    assert entropies.vendi_score(same) == pytest.approx(1.0)
    assert entropies.vendi_score(np.eye(12)) == pytest.approx(12.0)
    assert entropies.cluster_entropy(np.full((1, 30), 7)) == 0.0
    assert entropies.cluster_entropy(np.repeat(np.arange(8), 5)[None]) == pytest.approx(3.0)


def test_cluster_entropy_agrees_with_the_definition() -> None:
    labels = np.array([[0, 0, 0, 3, 3, 5], [1, 1, 1, 2, 2, 2]])
    first = -sum(p * np.log2(p) for p in (3 / 6, 2 / 6, 1 / 6))
    assert entropies.cluster_entropy(labels) == pytest.approx((first + 1.0) / 2)


def test_a_corpus_of_one_prompt_lies_in_one_cluster_of_the_others() -> None:
    same = Embedded("same", [f"s{i}" for i in range(60)], np.tile(np.linspace(-1, 1, 16), (60, 1)))
    rows, _ = measure([cloud("wide", 2.0, items=200), same], "hash", seed=0, resamples=50)
    wide, narrow = rows
    assert set(wide) == set(CONTEXTUAL_DIVERSITY.columns)
    assert (narrow["value"], narrow["vendi_score"], narrow["cluster_entropy"]) == pytest.approx((0.0, 1.0, 0.0), abs=1e-9)
    assert (narrow["vendi_ci_low"], narrow["cluster_ci_high"]) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert wide["cluster_entropy"] > 4
    assert wide["matched_n"] == narrow["matched_n"] == 30


def test_measures_depend_neither_on_the_order_of_items_nor_on_the_spelling_of_users() -> None:
    corpora = [cloud("a", 1.0, users=25, items=90), cloud("b", 2.0, items=130, seed=5)]
    rows, compared = measure(corpora, "hash", seed=3, resamples=50)
    again, compared_again = measure([shuffled(corpus) for corpus in corpora], "hash", seed=3, resamples=50)
    for row, other in zip(rows, again, strict=True):
        assert row == pytest.approx(other, abs=1e-9)
    assert [each.statement for each in compared] == [each.statement for each in compared_again]


def test_another_corpus_changes_no_distance_and_a_part_no_cluster() -> None:
    source, other = cloud("a", 1.0, items=120), cloud("b", 2.0, items=120, seed=5)
    part = Embedded("a, part", source.user_ids[:70], source.vectors[:70], is_part=True)
    (alone,), _ = measure([source], "hash", seed=0, resamples=50)
    beside, compared = measure([source, other], "hash", seed=0, resamples=50)
    with_part, compared_with_part = measure([source, part, other], "hash", seed=0, resamples=50)
    names = ("value", "ci_low", "ci_high", "vendi_score")
    assert [alone[name] for name in names] == [beside[0][name] for name in names]
    assert beside[0]["cluster_entropy"] == with_part[0]["cluster_entropy"]
    assert compared == compared_with_part


def test_small_corpora_have_no_matched_values_and_set_no_size() -> None:
    empty = Embedded("empty", [], np.zeros((0, 0)))
    rows, compared = measure([cloud("a", 1.0, items=100), cloud("few", 1.0, items=10), empty], "hash", seed=0, resamples=50)
    assert [row["matched_n"] for row in rows] == [50, None, None]
    assert [row["vendi_score_matched"] is None for row in rows] == [False, True, True]
    assert (rows[2]["value"], rows[2]["vendi_score"], rows[2]["n"]) == (None, None, 0)
    assert [(each.first, each.second) for each in compared] == [("a", "few")]
    only_few, _ = measure([cloud("few", 1.0, items=10)], "hash", seed=0, resamples=50)
    assert only_few[0]["matched_n"] is only_few[0]["cluster_entropy"] is None


def test_corpora_need_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="same name: a, a"):
        measure([cloud("a", 1.0), cloud("a", 2.0)], "hash", seed=0)


def test_intervals_cover_the_value_of_the_population() -> None:
    """Items of 30 topics, drawn anew 40 times: a 95 % interval that covered less than 85 % of the time would be wrong."""
    generator = np.random.default_rng(0)
    topics, shares = generator.normal(size=(30, 24)) * 1.2, generator.dirichlet(np.full(30, 0.5))

    def draw(items: int) -> tuple[np.ndarray, np.ndarray]:
        topic = generator.choice(30, items, p=shares)
        return unit(topics[topic] + generator.normal(size=(items, 24))), topic

    size = 60
    truths = [
        np.mean([entropies.vendi_score(draw(size)[0]) for _ in range(1_000)]),
        np.mean([entropies.cluster_entropy(draw(size)[1][None]) for _ in range(1_000)]),
        np.mean([1 - a @ b for a, b in zip(draw(100_000)[0], draw(100_000)[0], strict=True)]),
    ]
    covered = np.zeros(3)
    for seed in range(40):
        vectors, topic = draw(2 * size)
        users = [f"{item:03}" for item in range(len(vectors))]
        found = [
            entropies.matched(lambda items, v=vectors: entropies.vendi_score(v[items]), users, size, seed),
            entropies.matched(lambda items, t=topic: entropies.cluster_entropy(t[None, items]), users, size, seed),
            distance(Embedded("drawn", users, vectors), seed, resamples=200),
        ]
        covered += [each.ci_low <= truth <= each.ci_high for each, truth in zip(found, truths, strict=True)]
    assert (covered >= 34).all()


def test_matched_draws_take_whole_users() -> None:
    """Each user has 10 equal labels: 20 items are two users, so two labels, and never more."""
    users, labels = np.repeat([f"u{i}" for i in range(8)], 10), np.repeat(np.arange(8), 10)
    assert entropies.matched(lambda items: len(set(labels[items])), users, 20, seed=0).value == 2.0


def test_ranking_says_higher_lower_or_not_told_apart() -> None:
    wide, narrow, twin = cloud("wide", 3.0, seed=1), cloud("narrow", 0.5, seed=2), cloud("twin", 3.0, seed=3)
    alone = Embedded("one user", ["u", "u"], np.eye(2))
    found = ranking([distance(corpus, seed=0) for corpus in (wide, narrow, twin, alone)])
    verdicts = {(each.first, each.second): each.verdict for each in found}
    assert verdicts["wide", "narrow"] is Verdict.HIGHER
    assert verdicts["narrow", "twin"] is Verdict.LOWER
    assert verdicts["wide", "twin"] is verdicts["wide", "one user"] is Verdict.UNDECIDED
    assert found[0].statement.startswith("wide higher than narrow: difference +")
    assert found[0].ci_low <= found[0].difference <= found[0].ci_high
    assert next(each for each in found if each.second == "one user").statement.endswith("no interval")


def test_equal_corpora_under_different_names_are_drawn_independently() -> None:
    """Common draws would cancel out and give the difference of two samples of one size an interval of nothing."""
    same = ranking([distance(cloud(name, 1.0), seed=0) for name in ("a", "b")])[0]
    assert same.difference == 0.0
    assert same.ci_high - same.ci_low > 0.01


def test_text_and_drawing_show_every_corpus() -> None:
    rows, compared = measure([cloud("a", 1.0, items=100), cloud("few", 2.0, items=10)], "hash", seed=0, resamples=50)
    text = comparison.text(rows, compared)
    assert f"{rows[0]['value']:.4f} [{rows[0]['ci_low']:.4f}, {rows[0]['ci_high']:.4f}]" in text
    assert compared[0].statement in text
    ticks = [label.get_text() for label in comparison.drawing(rows).axes[0].get_yticklabels()]
    assert sorted(ticks) == ["a (100)", "few (10)"]
