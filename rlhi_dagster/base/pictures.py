"""A drawing as a small PNG, drawn once and kept.

What belongs here: from a matplotlib figure to bytes, and where they are kept. What does not: drawing, and how the UI embeds a picture
(``graph/metadata.py``).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlhi_dagster.base.aside import put

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = (100, 80, 60)
_COLOURS = 128
"""A drawing has few; a palette of them makes a picture a third as large as full colour does."""
MAX_BYTES = 60_000


def png(figure: Figure) -> bytes | None:
    """The figure as a PNG of at most ``MAX_BYTES``, drawn coarser if need be; ``None`` if it does not fit even so."""
    from PIL import Image

    for dpi in _DPI:
        drawn, file = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight")
        Image.open(drawn).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
        if len(file.getvalue()) <= MAX_BYTES:
            return file.getvalue()
    return None


def kept(file: Path, draw: Callable[[], Figure]) -> bytes | None:
    """The PNG in ``file``, which is drawn if it is not there yet; ``None`` if it is too large, and then nothing is kept."""
    if file.is_file():
        return file.read_bytes()
    found = png(draw())
    if found is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        put(file, found)
    return found
