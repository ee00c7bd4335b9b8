"""How the graph is cut: months for conversations, recipes for training arms, and what depends on which part.

What belongs here: partition definitions, mappings between them, and which partitions a run is about. What does not: which months or
recipes there are (the source and the profile say).

Months are dynamic partitions: those that the source has rows of and no others, so that nothing looks unfinished that cannot be made. The
instance knows them once they have been added (`add_months`): by ``rlhi months``, which every launch over a range asks, and by the sensor
``source_months``. A month that has lost its rows stays, for what is made of it has to be made anew without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import dagster as dg

from rlhi_dagster.training.recipes import BASE

_PARTITION_TAG = "dagster/partition"
_RANGE_START_TAG = "dagster/asset_partition_range_start"
_RANGE_END_TAG = "dagster/asset_partition_range_end"


def months(prefix: Sequence[str] = ()) -> dg.DynamicPartitionsDefinition:
    """Months of the source, ``YYYY-MM``, which whoever finds them adds to the instance.

    Args:
        prefix: First parts of every asset key; pipelines in one instance have months of their own.
    """
    return dg.DynamicPartitionsDefinition(name="/".join([*prefix, "months"]))


def add_months(instance: dg.DagsterInstance, definition: dg.DynamicPartitionsDefinition, found: Iterable[str]) -> list[str]:
    """Add those months that the instance lacks, and return them; all stand in the order of the calendar, which ranges rest on.

    Raises:
        ValueError: One does not read ``YYYY-MM``.
    """
    name, there = str(definition.name), definition.get_partition_keys(dynamic_partitions_store=instance)
    missing = sorted(set(found).difference(there))
    for month in missing:
        _check(month)
    if missing and there and missing[0] < there[-1]:
        # They are kept in the order in which they were added. What was made of a month stays its own when its name comes back.
        for month in there:
            instance.delete_dynamic_partition(name, month)
        instance.add_dynamic_partitions(name, sorted([*there, *missing]))
    elif missing:
        instance.add_dynamic_partitions(name, missing)
    return missing


def _check(month: str) -> None:
    try:
        date.fromisoformat(f"{month}-01")
    except ValueError as error:
        raise ValueError(f"a month must read YYYY-MM, not {month!r}") from error


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


def partitions_of_run(
    tags: Mapping[str, str], partitions: dg.PartitionsDefinition | None, instance: dg.DagsterInstance
) -> list[str] | None:
    """Partitions of ``partitions`` that a run with ``tags`` is about; ``None`` if the run names none or nothing is partitioned."""
    if partitions is None:
        return None
    if _PARTITION_TAG in tags:
        return [tags[_PARTITION_TAG]]
    if _RANGE_START_TAG in tags:
        keys = list(partitions.get_partition_keys(dynamic_partitions_store=instance))
        return keys[keys.index(tags[_RANGE_START_TAG]) : keys.index(tags[_RANGE_END_TAG]) + 1]
    return None


def ends_of_run(tags: Mapping[str, str]) -> list[str]:
    """The first and the last partition that a run with ``tags`` is about; none if it names none."""
    return [tags[tag] for tag in (_PARTITION_TAG, _RANGE_START_TAG, _RANGE_END_TAG) if tag in tags]


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of a run over the partitions from ``first`` to ``last``, both included."""
    return {_RANGE_START_TAG: first, _RANGE_END_TAG: last}
