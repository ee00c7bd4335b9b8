"""How an asset's table is stored and handed to the next asset.

What belongs here: the step between Dagster's contexts and the lake. What does not: paths and files (``base/lake.py``). Artefact assets
return a ``MaterializeResult`` without a value; no I/O manager is involved, and their consumers take them from ``Lake.artefact_path``.
"""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from rlhi_dagster.base import failures
from rlhi_dagster.base.lake import Lake, Staged
from rlhi_dagster.graph.partitions import partitions_of_run

_DIGITS = 16
"""Of a digest, as many as tell two contents apart."""


class TableIOManager(dg.ConfigurableIOManager):
    """Writes a table's partitions atomically, counts their rows, and scans them lazily for the next asset.

    What a consumer gets of a partitioned table:

    - a partitioned consumer: every partition that it is mapped to, or an error that names those that are missing;
    - an unpartitioned consumer, or one with ``AllPartitionMapping``: every partition that is present (months are open-ended, so missing
      ones are normal);
    - an asset check: of the asset that it checks, the partitions of its run; without any in the run, and of any other asset, every
      partition that is present.
    """

    root: str

    @property
    def lake(self) -> Lake:
        """The lake that this manager writes to."""
        return Lake(root=self.root)

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame | Staged) -> None:
        """Write the frame in the declared schema, or publish what was staged; report rows and content digest of each partition."""
        partitions = context.asset_partition_keys if context.has_asset_partitions else None
        table = _table_name(context.asset_key)
        with failures.told():
            written = self.lake.publish(obj) if isinstance(obj, Staged) else self.lake.write(table, obj, partitions)
        for file in written:
            measured: dict[str, dg.MetadataValue] = {
                # In few letters, for a long word would be cut off on the asset's page; the folder of the table is on the page too.
                "content_sha256": dg.MetadataValue.text(file.content_sha256[:_DIGITS]),
                "file": dg.MetadataValue.text(Path(file.path).name),
                "file_sha256": dg.MetadataValue.text(file.seal[:_DIGITS]),
            }
            if file.partition is None:
                context.add_output_metadata({"dagster/row_count": dg.MetadataValue.int(file.rows), **measured})
            else:
                # On the step's context, because an output's own metadata would be the same for every partition of the run.
                context.step_context.add_asset_metadata(
                    {"dagster/partition_row_count": file.rows, **measured}, asset_key=context.asset_key, partition_key=file.partition
                )

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        """Scan the upstream table; of a partitioned one, the partitions that this consumer is to see."""
        with failures.told():
            return self.lake.scan(_table_name(context.asset_key), _partitions_to_read(context))


def _table_name(key: dg.AssetKey) -> str:
    return key.path[-1]


def _partitions_to_read(context: dg.InputContext) -> Sequence[str] | None:
    """Partitions that must be there; ``None`` for every one that is present."""
    if not context.has_asset_partitions:
        return None
    step = context.step_context
    consumer = step.assets_def
    if consumer is None:
        return None
    if not consumer.keys:
        is_checked_asset = any(check.asset_key == context.asset_key for check in consumer.check_keys)
        return partitions_of_run(step.run_tags, context.asset_partitions_def, step.instance) if is_checked_asset else None
    mapping = consumer.get_partition_mapping_for_dep(context.asset_key)
    if isinstance(mapping, dg.AllPartitionMapping) or (mapping is None and consumer.partitions_def is None):
        return None
    return context.asset_partition_keys
