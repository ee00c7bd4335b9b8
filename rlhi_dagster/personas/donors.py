"""Whose persona a request is shown instead of its own user's, for controls."""

from __future__ import annotations

from typing import Any

import polars as pl

from rlhi_dagster.engines.models import digest_of


def donors(requests: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Give each request the persona of another user: the next one of the month in an order drawn by ``seed``.

    Args:
        requests: turn_id, user_id, month, persona; one row a request.
        seed: Changes the order.

    Returns:
        turn_id, donor_user_id, donor_persona; requests of a month with a single user are missing.
    """
    rows: list[dict[str, Any]] = []
    for _, group in requests.sort("month", "turn_id").group_by("month", maintain_order=True):
        order = sorted(group.to_dicts(), key=lambda row: digest_of("donor", row["turn_id"], seed))
        for position, row in enumerate(order):
            others = (order[(position + step) % len(order)] for step in range(1, len(order)))
            donor = next((other for other in others if other["user_id"] != row["user_id"]), None)
            if donor:
                rows.append({"turn_id": row["turn_id"], "donor_user_id": donor["user_id"], "donor_persona": donor["persona"]})
    schema = {"turn_id": pl.String(), "donor_user_id": pl.String(), "donor_persona": pl.String()}
    return pl.DataFrame(rows, schema=schema).sort("turn_id")
