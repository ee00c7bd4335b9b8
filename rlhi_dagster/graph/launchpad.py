"""What a person may set for one run, in the launchpad or with ``dg launch --config``: dials, each with a default that changes nothing.

What belongs here: the fields, with what each means. What does not: settings of the profile, which are part of what is made
(``profiles``), and what a dial does (``resources.py``, ``planning.py``). No default is null, for the launchpad writes down all others.
"""

from __future__ import annotations

import dagster as dg
from pydantic import Field


class ModelCalls(dg.Config):
    """What the step may ask of models in this run; as it is, everything that it needs."""

    limit: int = Field(
        default=0,
        ge=0,
        description="Ask for at most so many answers that the store lacks (replies, rewards, sentence vectors); 0: for all. Where more "
        "are missing, these are kept and the step ends before it writes a table, so that no part is taken for the whole; what is left is "
        "forecast from them.",
    )


class Forecasting(dg.Config):
    """What to forecast; as it is, every asset that asks models, over all of its partitions."""

    assets: list[str] = Field(default=[], description="Names of assets that ask models; all of them if the list is empty.")
    first: str = Field(
        default="",
        description="First partition: a month (YYYY-MM) or a recipe. If empty, the first month with turns, or the first recipe.",
    )
    last: str = Field(default="", description="Last partition. If empty, the one in `first`, or the last there is.")
