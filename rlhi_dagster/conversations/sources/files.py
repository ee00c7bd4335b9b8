"""The files of a source, on this machine or on the Hugging Face Hub.

What belongs here: finding and opening files. What does not: what is in them (``parquet``, ``lines``).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import IO

PARQUET = ".parquet"
GZIP, ZSTD = ".jsonl.gz", ".jsonl.zst"
SUFFIXES = (PARQUET, ".jsonl", GZIP, ZSTD)
_HUB = "hf://"


def find(location: str) -> list[str]:
    """List the files at a location, sorted.

    Raises:
        ValueError: Nothing matches; the message names the location.
    """
    root, pattern = split(location)
    if root.startswith(_HUB):
        from huggingface_hub import HfFileSystem  # the one kind of location that needs the network

        matches = [f"{_HUB}{path}" for path in HfFileSystem().glob(root.removeprefix(_HUB) + pattern)]
    else:
        matches = [str(path) for path in Path(root or ".").glob(pattern) if path.is_file()]
    found = sorted(file for file in matches if file.endswith(SUFFIXES))
    if not found:
        raise ValueError(f"no file that ends in {', '.join(SUFFIXES)} matches the location {location}")
    return found


def split(location: str) -> tuple[str, str]:
    """Split a location into what all its files share (empty, or ending in a slash) and a pattern below that."""
    is_on_hub = location.startswith(_HUB)
    path = location if is_on_hub else str(Path(location).expanduser())
    has_wildcard = re.search(r"[*?\[]", path) is not None
    is_folder = not path.endswith(SUFFIXES) and not has_wildcard if is_on_hub else Path(path).is_dir()
    if is_folder:
        return path.rstrip("/") + "/", "**/*"
    fixed = re.split(r"[*?\[]", path, maxsplit=1)[0]
    root = fixed[: fixed.rfind("/") + 1]
    return root, path[len(root) :]


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
