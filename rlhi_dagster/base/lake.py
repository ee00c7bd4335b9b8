"""Where every table and artefact lies, and how it gets there: Parquet files that readers never see half of.

What belongs here: paths, atomic writes, scans, and DuckDB as a reader. What does not: what a table contains (``base/tables.py``) and how an
asset's value is handed over (``graph/io_managers.py``). No pickles. DuckDB never holds the store: one process that writes a database locks
everyone else out.

Every table is sealed (``base/seals.py``): a scan first compares each file with its checksum, once in a process, and whoever meets a damaged
one is told which file of which asset it is, and what makes it again.

Layout: ``<root>/<asset>/<partition>.parquet``, unpartitioned ``<root>/<asset>/table.parquet``; artefacts are directories
``<root>/<asset>/[<partition>/]`` with a ``manifest.json``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import dagster as dg
import polars as pl
import pyarrow.parquet as pq

from rlhi_dagster.base import seals
from rlhi_dagster.base.digests import ContentDigest
from rlhi_dagster.base.failures import DamagedError, NotMadeError
from rlhi_dagster.base.owned import PARTIAL, Partial, sweep
from rlhi_dagster.base.tables import TABLES, Table

if TYPE_CHECKING:
    import duckdb

UNPARTITIONED = "table"


OURS = {"written_by": "rlhi-dagster"}
"""Metadata of Parquet files that this project writes, by which they are not taken for logs."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One file of a table as it was written.

    Attributes:
        partition: Partition key; ``None`` if the table is unpartitioned.
        path: The Parquet file.
        rows: Rows in it.
        content_sha256: Digest of its rows, independent of the file format.
        seal: Checksum that the file carries of itself.
    """

    partition: str | None
    path: Path
    rows: int
    content_sha256: str
    seal: str


@dataclass(slots=True)
class _OpenFile:
    """A file of a table while it is written aside."""

    partial: Partial
    parquet: pq.ParquetWriter
    digest: ContentDigest
    rows: int = 0
    seal: str = ""

    @property
    def path(self) -> Path:
        return self.partial.path

    def close(self) -> None:
        self.parquet.add_key_value_metadata(seals.UNSEALED)
        self.parquet.close()
        self.seal = _sealed(self.path)

    def append(self, rows: pl.DataFrame) -> None:
        self.parquet.write_table(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
        self.digest.update(rows)
        self.rows += len(rows)


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows of a table in finished files that do not have their final names yet.

    Attributes:
        table: Name of the table.
        files: The file of each partition, in order; of ``None`` if the table is unpartitioned.
    """

    table: str
    files: dict[str | None, _OpenFile]

    @property
    def content_sha256(self) -> str:
        """Digest of all rows."""
        return reduce(or_, (file.digest for file in self.files.values())).hexdigest()

    def scan(self) -> pl.LazyFrame:
        """The rows."""
        return pl.scan_parquet([file.path for file in self.files.values()], glob=False, hive_partitioning=False)


class TableWriter:
    """Writes a table in pieces, so that it need not fit into memory; use as a context manager, then `Lake.publish` what it staged.

    The partitions of a piece are compressed in threads while the next one is made. Leaving the context by an error removes the files.
    """

    def __init__(self, table_name: str, paths: dict[str | None, Path]) -> None:
        """Open a file for each partition; what killed writers left beside it goes."""
        for folder in {path.parent for path in paths.values()}:
            sweep(folder.glob(PARTIAL))
        self._table_name = table_name
        self._table = TABLES[table_name]
        schema = self._table.empty().to_arrow(compat_level=pl.CompatLevel.oldest()).schema.with_metadata(OURS)
        self._files = {
            key: _OpenFile(partial, pq.ParquetWriter(partial.path, schema, compression="zstd"), ContentDigest(self._table.schema))
            for key, partial in ((key, Partial(path)) for key, path in paths.items())
        }
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._pending: list[Future[None]] = []

    def append(self, rows: pl.DataFrame) -> None:
        """Add rows; within a piece they are sorted by the table's key.

        Raises:
            ValueError: A declared column is missing, or a row is outside the partitions.
        """
        parts = _by_partition(self._table_name, self._table, rows, list(self._files))
        self._wait()
        self._pending = [self._threads.submit(self._files[key].append, part) for key, part in parts.items() if len(part)]

    def finish(self) -> Staged:
        """Close the files; nothing can be added any more."""
        self._wait()
        for file in self._files.values():
            file.close()
        return Staged(self._table_name, self._files)

    def _wait(self) -> None:
        for write in self._pending:
            write.result()
        self._pending = []

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._threads.shutdown()
        if error:
            for file in self._files.values():
                with suppress(OSError):  # on a full disk the footer cannot be written either
                    file.parquet.close()
                file.partial.close()


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
                of a partitioned one that is present. They are read in the order of their names, however they are given (Dagster gives
                dynamic partitions in the order of a set).

        Raises:
            NotMadeError: A requested file, or every file, is missing.
            DamagedError: A file is not as it was written.
        """
        if partitions is not None:
            paths = [self.table_path(asset, partition) for partition in sorted(partitions)]
        else:
            paths = sorted(self._folder(asset).glob("*.parquet"))
        missing = [path.stem for path in paths if not path.is_file()]
        if missing or not paths:
            keys = [key for key in missing if key != UNPARTITIONED]
            lack = f"lacks the partition(s) {', '.join(keys)}" if keys else "has not been materialized"
            raise NotMadeError(f"{asset} {lack}", asset, keys)
        self._check(asset, paths)
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
        with self.writer(table_name, partitions) as writer:
            writer.append(frame)
            staged = writer.finish()
        return self.publish(staged)

    def writer(self, table_name: str, partitions: Sequence[str] | None = None) -> TableWriter:
        """Write a table, or the given partitions of it, piece by piece; arguments and errors as of `write`."""
        if table_name not in TABLES:
            raise ValueError(f"{table_name} is not a table; base/tables.py declares {', '.join(sorted(TABLES))}")
        column = TABLES[table_name].partition_column
        if (column is None) != (partitions is None):
            kind = "not partitioned" if column is None else f"partitioned by {column}"
            raise ValueError(f"{table_name} is {kind}, but was given {'partitions' if column is None else 'none'}")
        keys: Sequence[str | None] = [None] if partitions is None else partitions
        return TableWriter(table_name, {key: self.table_path(table_name, key) for key in keys})

    def publish(self, staged: Staged) -> list[WrittenFile]:
        """Sync staged files and give them their final names; each replaces its predecessor at once or not at all."""
        written = []
        try:
            for key, file in staged.files.items():
                path = self.table_path(staged.table, key)
                _publish(file.path, path)
                written.append(WrittenFile(key, path, file.rows, file.digest.hexdigest(), file.seal))
        finally:
            for file in staged.files.values():
                file.partial.close()
        return written

    def drop_rows(self, asset: str, is_dropped: pl.Expr) -> int:
        """Leave rows out of a table; returns how many.

        A file with such rows is replaced at once by one without, the others keep their order; a file without any is not touched.

        Args:
            asset: Name of the table; nothing is done if it has no file.
            is_dropped: Says of a row whether it goes; null counts as no.

        Raises:
            DamagedError: A file is not as it was written.
        """
        dropped, goes = 0, is_dropped.fill_null(value=False)
        paths = sorted(self._folder(asset).glob("*.parquet"))
        self._check(asset, paths)
        for path in paths:
            rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            gone = rows.filter(goes).select(pl.len()).collect(engine="streaming").item()
            if not gone:
                continue
            partial = Partial(path)
            try:
                rows.filter(~goes).sink_parquet(partial.path, compression="zstd", metadata=OURS | seals.UNSEALED)
                _sealed(partial.path)
                _publish(partial.path, path)
            finally:
                partial.close()
            dropped += gone
        return dropped

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open an in-memory DuckDB database with one view per table that has a file; errors as of `scan`."""
        import duckdb

        with duckdb.connect() as connection:
            for name in sorted(TABLES):
                paths = sorted(self._folder(name).glob("*.parquet"))
                if paths:
                    self._check(name, paths)
                    connection.read_parquet([str(path) for path in paths]).create_view(name)
            yield connection

    def export_duckdb(self, path: Path) -> list[str]:
        """Copy every table into one DuckDB file for people to query, replacing ``path`` at once; return the tables' names.

        Raises:
            ValueError: There is no table.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")  # DuckDB makes the file, and locks it itself
        try:
            with self.connect() as connection:
                views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY view_name").fetchall()
                names = [name for (name,) in views]
                if not names:
                    raise ValueError(f"there is no table in {self.root}: RLHI_DATA, RLHI_PROFILE and RLHI_SOURCE say which run is meant")
                quoted = str(partial).replace("'", "''")
                connection.execute(f"ATTACH '{quoted}' AS export")
                for name in names:
                    connection.execute(f'CREATE TABLE export."{name}" AS SELECT * FROM "{name}"')
                connection.execute("DETACH export")
            _publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return names

    def damaged(self) -> list[DamagedError]:
        """What is to be told of each file of a table that is not as it was written."""
        found = []
        for name in sorted(TABLES):
            for path in sorted(self._folder(name).glob("*.parquet")):
                try:
                    self._check(name, [path])
                except DamagedError as error:
                    found.append(error)
        return found

    def _check(self, asset: str, paths: Sequence[Path]) -> None:
        try:
            seals.check_all(paths)
        except seals.BrokenFileError as error:
            keys = [error.file.stem] if error.file.stem != UNPARTITIONED else []
            raise DamagedError(f"{error.file}, a file of {asset}, is damaged: {error}", asset, keys) from error

    def _folder(self, asset: str) -> Path:
        return Path(self.root) / _safe(asset)


def check_writable(out: Path) -> None:
    """Raise ValueError if no file or folder can be made where ``out`` is to be."""
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}")
    try:
        with TemporaryDirectory(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror}") from error


def _by_partition(table_name: str, table: Table, frame: pl.DataFrame, keys: Sequence[str | None]) -> dict[str | None, pl.DataFrame]:
    """The rows of each partition, as declared; ValueError if a row is in none of them."""
    rows, column = table.conform(frame), table.partition_column
    if column is None:
        return {None: rows}
    outside = rows.filter(~pl.col(column).is_in(keys).fill_null(False))
    if len(outside):
        found = ", ".join(f"{value} ({count})" for value, count in outside[column].value_counts().sort(column).iter_rows())
        raise ValueError(f"{table_name}: {len(outside)} rows have a {column} outside {', '.join(map(str, keys))}: {found}")
    return {key: part for (key,), part in rows.partition_by(column, as_dict=True).items()}


def _safe(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise ValueError(f"{name!r} cannot name an asset or a partition: it would leave the lake")
    return name


def _sealed(partial: Path) -> str:
    with partial.open("r+b") as stream:
        return seals.seal(stream)


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
