"""How the graph is cut: months for conversations, recipes for training arms, and what depends on which part.

What belongs here: partition definitions, mappings between them, and which partitions a run is about. What does not: which months or
recipes there are (the profile says).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import dagster as dg

from rlhi_dagster.training.recipes import BASE

MONTH_FORMAT = "%Y-%m"

_PARTITION_TAG = "dagster/partition"
_RANGE_START_TAG = "dagster/asset_partition_range_start"
_RANGE_END_TAG = "dagster/asset_partition_range_end"


def months(first: str) -> dg.MonthlyPartitionsDefinition:
    """Months from ``first`` (``YYYY-MM``) on, open-ended, the current month included.

    Raises:
        ValueError: ``first`` is not a month.
    """
    try:
        date.fromisoformat(f"{first}-01")
    except ValueError as error:
        raise ValueError(f"the first month must read YYYY-MM, not {first!r}") from error
    return dg.MonthlyPartitionsDefinition(start_date=first, fmt=MONTH_FORMAT, timezone="UTC", end_offset=1)


def recipes(names: Sequence[str]) -> dg.StaticPartitionsDefinition:
    """One partition per training recipe, in the order given; ``base``, the untrained policy, is one of them.

    Raises:
        ValueError: ``base`` is missing, or a name occurs twice.
    """
    if BASE not in names or len(set(names)) != len(names):
        raise ValueError(f"recipes must be distinct and include {BASE!r}, not {', '.join(names)}")
    return dg.StaticPartitionsDefinition(list(names))


def against_base(names: Sequence[str]) -> dg.StaticPartitionMapping:
    """Let recipe ``r`` depend on the partitions ``r`` and ``base`` of an upstream asset with the same recipes."""
    return dg.StaticPartitionMapping({name: list(names) if name == BASE else [name] for name in names})


def partitions_of_run(tags: Mapping[str, str], partitions: dg.PartitionsDefinition | None) -> list[str] | None:
    """Partitions of ``partitions`` that a run with ``tags`` is about; ``None`` if the run names none or nothing is partitioned."""
    if partitions is None:
        return None
    if _PARTITION_TAG in tags:
        return [tags[_PARTITION_TAG]]
    if _RANGE_START_TAG in tags:
        return list(partitions.get_partition_keys_in_range(dg.PartitionKeyRange(tags[_RANGE_START_TAG], tags[_RANGE_END_TAG])))
    return None


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of a run over the partitions from ``first`` to ``last``, both included."""
    return {_RANGE_START_TAG: first, _RANGE_END_TAG: last}
