"""Where every table and artefact lies, and how it gets there: Parquet files that readers never see half of.

What belongs here: paths, atomic writes, scans, and DuckDB as a reader. What does not: what a table contains (``tables.py``) and how an
asset's value is handed over (``io_managers.py``). No pickles. DuckDB never holds the store: one process that writes a database locks
everyone else out.

Layout: ``<root>/<asset>/<partition>.parquet``, unpartitioned ``<root>/<asset>/table.parquet``; artefacts are directories
``<root>/<asset>/[<partition>/]`` with a ``manifest.json``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg
import polars as pl

from rlhi_dagster.metadata import fingerprint
from rlhi_dagster.tables import TABLES

if TYPE_CHECKING:
    import duckdb

UNPARTITIONED = "table"


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of a table as it was written.

    Attributes:
        partition: Partition key; ``None`` if the table is unpartitioned.
        path: The Parquet file.
        rows: Rows in it.
        content_sha256: Digest of its rows, independent of the file format.
    """

    partition: str | None
    path: Path
    rows: int
    content_sha256: str


class Lake(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder that holds every table and artefact of one source and profile."""

    root: str

    def table_path(self, asset: str, partition: str | None = None) -> Path:
        """The Parquet file of a table, or of one partition of it."""
        return self._folder(asset) / f"{_safe(partition) if partition is not None else UNPARTITIONED}.parquet"

    def artefact_path(self, asset: str, partition: str | None = None) -> Path:
        """The directory of an artefact, or of one partition of it."""
        return self._folder(asset) / _safe(partition) if partition is not None else self._folder(asset)

    def partitions_present(self, asset: str) -> list[str]:
        """Partitions of a table that have a file, sorted."""
        return sorted(path.stem for path in self._folder(asset).glob("*.parquet") if path.stem != UNPARTITIONED)

    def scan(self, asset: str, partitions: Sequence[str] | None = None) -> pl.LazyFrame:
        """Scan a table lazily.

        Args:
            asset: Name of the asset, which is the name of the table.
            partitions: Partitions to read, each of which must be there; ``None`` for the unpartitioned table, or for every partition
                of a partitioned one that is present.

        Raises:
            ValueError: A requested file, or every file, is missing; the message says how to make it.
        """
        if partitions is not None:
            paths = [self.table_path(asset, partition) for partition in partitions]
        else:
            paths = sorted(self._folder(asset).glob("*.parquet"))
        missing = [path.stem for path in paths if not path.is_file()]
        if missing or not paths:
            raise ValueError(_missing_message(asset, missing))
        return pl.scan_parquet(paths, glob=False, hive_partitioning=False)

    def write(self, table_name: str, frame: pl.DataFrame, partitions: Sequence[str] | None = None) -> list[WrittenFile]:
        """Write a table, or the given partitions of it; each file replaces its predecessor at once or not at all.

        Args:
            table_name: A name in ``tables.TABLES``.
            frame: The rows, in any order; at least the declared columns.
            partitions: Partitions that are written, also those without a row; ``None`` if the table is unpartitioned.

        Returns:
            The files, in the order of ``partitions``.

        Raises:
            ValueError: The table is unknown, a column is missing, or a row is outside ``partitions``. Nothing has been written then.
        """
        if table_name not in TABLES:
            raise ValueError(f"{table_name} is not a table; tables.py declares {', '.join(sorted(TABLES))}")
        table = TABLES[table_name]
        rows = table.conform(frame)
        column = table.partition_column
        if (column is None) != (partitions is None):
            kind = "not partitioned" if column is None else f"partitioned by {column}"
            raise ValueError(f"{table_name} is {kind}, but was given {'partitions' if column is None else 'none'}")
        if column is None or partitions is None:
            return [self._write_file(table_name, None, rows)]
        outside = rows.filter(~pl.col(column).is_in(list(partitions)).fill_null(False))
        if len(outside):
            found = ", ".join(f"{value} ({count})" for value, count in outside[column].value_counts().sort(column).iter_rows())
            raise ValueError(f"{table_name}: {len(outside)} rows have a {column} outside {', '.join(partitions)}: {found}")
        return [self._write_file(table_name, key, rows.filter(pl.col(column) == key)) for key in partitions]

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open an in-memory DuckDB database with one view per table that has a file."""
        import duckdb

        with duckdb.connect() as connection:
            for name in sorted(TABLES):
                paths = sorted(str(path) for path in self._folder(name).glob("*.parquet"))
                if paths:
                    connection.read_parquet(paths).create_view(name)
            yield connection

    def export_duckdb(self, path: Path) -> list[str]:
        """Copy every table into one DuckDB file for people to query, replacing ``path`` at once; return the tables' names."""
        partial = _partial(path)
        try:
            with self.connect() as connection:
                views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name").fetchall()
                names = [name for (name,) in views]
                quoted = str(partial).replace("'", "''")
                connection.execute(f"ATTACH '{quoted}' AS export")
                for name in names:
                    connection.execute(f'CREATE TABLE export."{name}" AS SELECT * FROM "{name}"')
                connection.execute("DETACH export")
            _publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return names

    def _folder(self, asset: str) -> Path:
        return Path(self.root) / _safe(asset)

    def _write_file(self, table_name: str, partition: str | None, rows: pl.DataFrame) -> WrittenFile:
        path = self.table_path(table_name, partition)
        partial = _partial(path)
        try:
            rows.write_parquet(partial, compression="zstd")
            _publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return WrittenFile(partition, path, len(rows), fingerprint(rows))


def _safe(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} cannot name an asset or a partition: it would leave the lake")
    return name


def _missing_message(asset: str, partitions: Sequence[str]) -> str:
    keys = [key for key in partitions if key != UNPARTITIONED]
    if not keys:
        return f"{asset} has not been materialized; run: dg launch --assets {asset} (with --partition-range if it is partitioned)"
    option = f"--partition {keys[0]}" if len(keys) == 1 else f"--partition-range {keys[0]}...{keys[-1]}"
    return f"{asset} lacks the partition(s) {', '.join(keys)}; run: dg launch --assets {asset} {option}"


def _partial(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid4().hex}.partial")


def _publish(partial: Path, path: Path) -> None:
    """Sync a file to disk and give it its final name; the name, too, survives a power cut."""
    _sync(partial, os.O_RDONLY)
    partial.replace(path)
    _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
