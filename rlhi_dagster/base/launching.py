"""The command that makes an asset, as errors about something that is missing tell it.

What belongs here: what has to be known to launch an asset or a job: which assets are made together, and how they are cut. What does not:
the sentences around the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlhi_dagster.base.tables import TABLES

TOGETHER = (("conversations", "quarantine", "superseded", "explicit_feedback"), ("online_candidates", "online_pairs", "online_policies"))
"""Assets that one step makes: none is launched without the others."""
_ARTEFACTS_BY_RECIPE = ("checkpoints", "online_policies")


def partition_column(asset: str) -> str | None:
    """How an asset is cut: by ``month``, by ``recipe``, or not at all."""
    if asset in TABLES:
        return TABLES[asset].partition_column
    return "recipe" if asset in _ARTEFACTS_BY_RECIPE else None


def command(asset: str, partitions: Sequence[str] = ()) -> str:
    """What to run to materialize an asset, in the installation's environment and the folder of the project that holds the run.

    Args:
        asset: Its name.
        partitions: All between the first and the last of these are made; of a partitioned asset without any, every one.
    """
    names = next((names for names in TOGETHER if asset in names), (asset,))
    launch = f'DAGSTER_HOME="$(rlhi home)" dg launch --assets {",".join(names)}'
    if partitions:
        return f"{launch} {_option(sorted(partitions))}"
    column = partition_column(asset)
    if column == "month":
        return f'{launch} --partition-range "$(rlhi months)"'
    return f'{launch} --partition-range "$(rlhi recipes)"' if column else launch


def command_of_job(job: str, partitions: Sequence[str] = ()) -> str:
    """What to run to launch a job, over all partitions between the first and the last of these if there are any."""
    launch = f'DAGSTER_HOME="$(rlhi home)" dg launch --job {job}'
    return f"{launch} {_option(partitions)}" if partitions else launch


def command_of_whole_job(name: str, partitions: str) -> str:
    """What to run to launch a job over all its partitions: `months` or `recipes`."""
    return f'{command_of_job(name)} --partition-range "$(rlhi {partitions})"'


def command_of_artefact(folder: Path) -> str:
    """The same for the artefact that lies in a folder of the lake, or for one of its partitions."""
    if folder.parent.name not in _ARTEFACTS_BY_RECIPE:
        return command(folder.name)
    return command(folder.parent.name, [folder.name.partition("-round-")[0]])


def _option(partitions: Sequence[str]) -> str:
    first, last = partitions[0], partitions[-1]
    return f"--partition {first}" if first == last else f"--partition-range {first}...{last}"
