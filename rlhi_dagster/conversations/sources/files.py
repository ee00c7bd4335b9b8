"""The files of a source, on this machine or on the Hugging Face Hub.

What belongs here: which files are read, which are left out, and opening them. What does not: what is in them (``decompression``,
``values``, ``parquet``).

Left out are files with other endings, links to nothing, names that begin with ``.`` or ``_`` (Spark's and Dask's own), folders of
temporary files and of checkpoints, and tables that this project has written itself. `Found` counts them.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import pyarrow.parquet as pq

from rlhi_dagster.base.escapes import line
from rlhi_dagster.base.lake import OURS

PARQUET = ".parquet"
ARROW = ".arrow"
_JSON = (".jsonl", ".ndjson", ".json")
_COMPRESSED = ("", ".gz", ".zst")
SUFFIXES = (PARQUET, ARROW, *(ending + compressed for ending in _JSON for compressed in _COMPRESSED))
"""Endings that are read, in upper or lower case."""

_HUB = "hf://"
_WILDCARD = re.compile(r"[*?\[]")
_PASSING = re.compile(r"[._].*|te?mp|temporary|checkpoints?(-\d+)?", re.IGNORECASE)
_OF_DATASETS = ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json")
_HIVE = re.compile(r"(?<![^/])([^/=]+)=([^/]*)/")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"

_FOREIGN = {
    b"PAR1": "it is a Parquet file: give it the ending .parquet",
    b"ARROW1": "it is an Arrow file: give it the ending .arrow",
    b"BZh": "it is compressed with bzip2, which is not read: decompress it first",
    b"\xfd7zXZ": "it is compressed with xz, which is not read: decompress it first",
    b"\x04\x22\x4d\x18": "it is compressed with lz4, which is not read: decompress it first",
    b"PK\x03\x04": "it is a ZIP archive, which is not read: unpack it first",
    b"SQLite format 3\x00": "it is a database of SQLite, which is not read: export its tables first",
    b"version https://git-lfs.github.com/spec/": "it is a pointer of Git LFS: fetch the file itself (git lfs pull)",
}


@dataclass(frozen=True, slots=True)
class Found:
    """The files at a location.

    Attributes:
        files: Those that are read, sorted.
        root: What all of them share: empty, or ending in a slash.
        left_out: How many others are there, by ending or cause, the most frequent first.
    """

    files: tuple[str, ...]
    root: str
    left_out: Mapping[str, int]

    @property
    def account(self) -> str:
        """One line that says how many files were read and left out."""
        others = ", ".join(f"{count:,} {line(cause)}" for cause, count in self.left_out.items())
        return f"{len(self.files):,} file{'s' * (len(self.files) != 1)} read" + (f"; left out: {others}" if others else "")


def look(location: str) -> Found:
    """Find the files at a location: a path (whatever characters it has), a folder, or a pattern.

    Linked folders are entered, and no file is read twice for it; a folder that a pattern matches is read as a folder.

    Raises:
        ValueError: Nothing matches; the message names the location.
    """
    if not location.strip():
        raise ValueError("the location of the source is empty; give a file, a folder or a pattern")
    root, matches = _on_hub(location) if location.startswith(_HUB) else _here(location)
    read, left_out = [], Counter[str]()
    for file, is_named in matches:
        cause = None if is_named else _why_left_out(file.removeprefix(root))
        ending = next((suffix for suffix in SUFFIXES if file.lower().endswith(suffix)), None)
        if cause is None and ending is None:
            cause = Path(file).suffix or "without an ending"
        if cause is None and not file.startswith(_HUB):
            cause = _why_not_opened(file)
        if cause is None:
            read.append(file)
        else:
            left_out[cause] += 1
    found = Found(tuple(sorted(set(read))), root, dict(left_out.most_common()))
    if not found.files:
        there = f"; what is there was left out: {found.account.split(': ')[-1]}" if left_out else ""
        raise ValueError(f"no file that ends in {', '.join(SUFFIXES)} matches the location {location}{there}")
    return found


def find(location: str) -> list[str]:
    """List the files at a location that are read, sorted; see `look`."""
    return list(look(location).files)


def is_there(location: str) -> bool:
    """Whether something on this machine is at a location or matches it, whatever it is."""
    return Path(location).expanduser().exists() or any(True for _ in _here(location)[1])


def suffix(file: str) -> str:
    """Which of `SUFFIXES` a file ends in."""
    return next(ending for ending in SUFFIXES if file.lower().endswith(ending))


def hive_columns(path: str) -> dict[str, str | None]:
    """Columns that the folders of a path below the root give, as Hive and Spark name them: ``model=gpt-4/month=2023-11/``."""
    return {name: None if value == _HIVE_NULL else unquote(value) for name, value in _HIVE.findall(path)}


def version(file: str) -> str:
    """What changes when the file does: SHA-256 of its bytes, or the blob id that the Hub lists."""
    if file.startswith(_HUB):
        from huggingface_hub import HfFileSystem

        return str(HfFileSystem().info(file)["blob_id"])
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def open_file(file: str) -> IO[bytes]:
    """Open a file for reading, wherever it is."""
    if file.startswith(_HUB):
        from huggingface_hub import HfFileSystem

        stream: IO[bytes] = HfFileSystem().open(file, "rb")
        return stream
    return Path(file).open("rb")


def foreign(head: bytes) -> str | None:
    """What a file is by its first bytes, if it is nothing that can be read as JSON; None otherwise."""
    return next((said for start, said in _FOREIGN.items() if head.startswith(start)), None)


def _here(location: str) -> tuple[str, Iterable[tuple[str, bool]]]:
    """The root, and each file with whether it was named itself."""
    path = str(Path(location).expanduser())
    if Path(path).is_dir():
        root = path.rstrip("/") + "/"
        return root, ((file, False) for file in _once(_walk(root)))
    if os.path.lexists(path) or not _WILDCARD.search(path):
        return path[: path.rfind("/") + 1], [(path, True)] if os.path.lexists(path) else []
    root, wanted = "", re.split(r"(?<=/)", path)
    while os.path.lexists(root + wanted[0]):  # what is there is meant as it stands, whatever characters it has
        root += wanted.pop(0)
    return root, ((file, False) for file in _once(_matched(root, "".join(wanted))))


def _once(found: Iterable[str]) -> Iterator[str]:
    """Files without those to which a shorter way leads through other folders."""
    places: dict[Path, Path] = {}
    seen = set()
    for file in sorted(found, key=lambda file: (file.count("/"), file)):
        folder = Path(file).parent
        if folder not in places:
            places[folder] = folder.resolve()
        if (place := places[folder] / Path(file).name) not in seen:
            seen.add(place)
            yield file


def _matched(root: str, pattern: str) -> Iterator[str]:
    wanted = pattern.split("/")
    if "**" not in wanted:
        for match in glob.glob(glob.escape(root) + pattern):  # noqa: PTH207 - pathlib does not enter linked folders
            yield from _walk(match) if Path(match).is_dir() else [match]
        return
    for file in _walk(root or "."):  # glob's own way would follow a link that leads back until the path is too long
        parts = file.removeprefix(root).split("/")
        if any(_fits(parts[:number], wanted) for number in range(1, len(parts) + 1)):
            yield file


def _fits(parts: list[str], wanted: list[str]) -> bool:
    """Whether the parts of a path are those of a pattern, in which ``**`` stands for any number of folders."""
    if not wanted or not parts or wanted == ["**"]:
        return bool(wanted) == bool(parts)
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or _fits(parts[1:], wanted)
    return fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _walk(root: str) -> Iterator[str]:
    """Files below a folder, not by links that lead back."""
    above: dict[Path, frozenset[Path]] = {}
    for folder, folders, names in os.walk(root, followlinks=True):
        here, place = Path(folder), Path(folder).resolve()
        before = above.get(here.parent, frozenset()) if above else frozenset()
        if place in before:
            folders.clear()
            continue
        above[here] = before | {place}
        yield from (str(here / name) for name in names)


def _on_hub(location: str) -> tuple[str, Iterable[tuple[str, bool]]]:
    from huggingface_hub import HfFileSystem  # the one kind of location that needs the network

    is_folder = not location.lower().endswith(SUFFIXES) and not _WILDCARD.search(location)
    pattern = location.rstrip("/") + "/**/*" if is_folder else location
    fixed = _WILDCARD.split(pattern, maxsplit=1)[0]
    root = fixed[: fixed.rfind("/") + 1]
    return root, ((f"{_HUB}{path}", False) for path in HfFileSystem().glob(pattern.removeprefix(_HUB)))


def _why_left_out(below_root: str) -> str | None:
    *folders, name = below_root.split("/")
    if name.startswith((".", "_")):
        return "hidden or of a system"
    if name in _OF_DATASETS:
        return "of the library datasets"
    return "in folders of temporary files or checkpoints" if any(map(_PASSING.fullmatch, folders)) else None


def _why_not_opened(file: str) -> str | None:
    if not Path(file).is_file():
        return "links to nothing" if Path(file).is_symlink() else "of no ordinary kind"
    try:
        metadata = (pq.read_metadata(file).metadata or {}) if suffix(file) == PARQUET else {}
    except Exception:  # damaged: told when it is read
        return None
    return "written by this project" if all(metadata.get(name.encode()) == value.encode() for name, value in OURS.items()) else None
