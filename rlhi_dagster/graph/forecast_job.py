"""The job `forecast`: what model calls would cost, as a run of its own that asks no model and writes no table.

What belongs here: the job and what its run shows. What does not: how the forecast is made (``planning.py``). Without annotations as text
(``from __future__``), for Dagster reads the class of an op's config from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from rlhi_dagster.base import failures
from rlhi_dagster.graph.declare import Place
from rlhi_dagster.graph.launchpad import Forecasting
from rlhi_dagster.graph.metadata import forecast_observation, markdown_list, markdown_table
from rlhi_dagster.graph.planning import FOOTNOTE, Plan

_COLUMNS = {
    "asset": pl.String(),
    **dict.fromkeys(("requests", "missing", "prompt_tokens", "completion_tokens"), pl.Int64()),
    **dict.fromkeys(("seconds", "cost_usd"), pl.Float64()),
}


def forecast(place: Place, plan: Callable[[Sequence[str], str | None, str | None], Sequence[Plan]]) -> dg.JobDefinition:
    """The job.

    Args:
        place: Whose assets.
        plan: ``planning.Planner`` of the place's profile.
    """

    @dg.op(name=place.named("plan"), out=dg.Out(dg.Nothing))
    def planned(context: dg.OpExecutionContext, config: Forecasting) -> None:
        """Run each asset up to its first model call, and start nothing; each forecast is an observation of its asset."""
        with failures.told():
            plans = plan(config.assets, config.first or None, config.last or config.first or None)
        for each in plans:
            context.log.info(f"{each.asset}: {each.forecast or each.note}")
            if each.forecast:
                context.log_event(forecast_observation(place.key(each.asset), each.forecast))
        context.add_output_metadata(_shown(plans))

    @dg.job(
        name=place.named("forecast"),
        description="What making assets would ask models for: requests that the store lacks, tokens, time, cost. Asks no model and writes "
        "no table. The launchpad says of which assets and partitions.",
    )
    def job() -> None:
        planned()

    return job


def _shown(plans: Sequence[Plan]) -> dict[str, Any]:
    known = [each.forecast for each in plans if each.forecast]
    rows = [{"asset": each.asset, **asdict(each.forecast)} for each in plans if each.forecast]
    is_priced = all(each.cost_usd is not None for each in known)
    return {
        "calls": markdown_table(pl.DataFrame(rows, schema=_COLUMNS)),
        "measured_on": markdown_list(f"{each.asset}: {each.forecast.basis if each.forecast else each.note}" for each in plans),
        "missing": sum(each.missing for each in known),
        "assets_not_planned": len(plans) - len(known),
        **({"cost_usd": round(sum(each.cost_usd or 0.0 for each in known), 4)} if is_priced else {}),
        "what_it_is": FOOTNOTE,
    }
