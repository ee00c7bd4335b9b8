"""Small files that appear whole or not at all: written aside, then renamed.

What belongs here: a file whose content is at hand. What does not: files that grow while they are written (``owned.Partial``).
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4


def put(file: Path, content: bytes | str) -> None:
    """Give a file this content, text as UTF-8; what was there stays until all of it is written."""
    partial = file.with_name(f".{file.name}.{uuid4().hex}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
