"""Numbers that a worker tells while it works, shown on the asset's page at once.

What belongs here: making an observation of a worker's message. What does not: reading messages (``graph/pipes.py``) and what is told
(``workers/watch.py``).
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from rlhi_dagster.training.curves import OBSERVED


def record(context: dg.AssetExecutionContext, payload: Any) -> bool:
    """Log a worker's custom message as an observation of the assets in hand if it is one; return whether it was.

    Args:
        context: Of the asset. An observation is of the partition that has the name of what is being made, if there is one.
        payload: The message.
    """
    if not isinstance(payload, dict) or OBSERVED not in payload:
        return False
    told = payload[OBSERVED]
    partitions = context.partition_keys if context.has_partition_key or context.has_partition_key_range else []
    partition = told["name"] if told["name"] in partitions else None
    for key in context.selected_asset_keys:
        context.log_event(dg.AssetObservation(key, description=told["line"], metadata=told["numbers"], partition=partition))
    return True
