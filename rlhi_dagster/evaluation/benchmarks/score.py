"""From values of items to rows of ``SCORES``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from rlhi_dagster.base.intervals import estimate
from rlhi_dagster.base.tables import SCORES
from rlhi_dagster.evaluation import Metric
from rlhi_dagster.evaluation.power import told


def score(metric: Metric, n: int, value: float | None, ci_low: float | None, ci_high: float | None) -> dict[str, Any]:
    """The part of a row of ``SCORES`` that is measured."""
    return {"metric": metric.value, "n": n, "value": value, "ci_low": ci_low, "ci_high": ci_high}


def mean_score(metric: Metric, values: pl.Series, clusters: pl.Series) -> dict[str, Any]:
    """A mean with its interval over clusters; `n` counts clusters, that is items or dialogues."""
    found = estimate(values, clusters, is_share=metric is not Metric.RATING)
    return {"metric": metric.value, **told(found), "n": found.clusters}


def in_scores(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """``SCORES`` of rows."""
    return SCORES.conform(pl.DataFrame(list(rows), schema=SCORES.schema))
