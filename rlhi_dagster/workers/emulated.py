"""Bfloat16 on a CPU that has none of it: said aloud, for there it is several times slower than float32.

What belongs here: telling. What does not: choosing another arithmetic, which would change what comes out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def tell(setting: str, say: Callable[[str], None], *, is_bfloat16: bool) -> None:
    """Say so if work in bfloat16 is about to be done by a CPU that emulates it.

    Args:
        setting: What to set instead, as in a profile.
        say: Where it goes.
        is_bfloat16: Whether the work is to be done in it.
    """
    has_none = torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if is_bfloat16 and has_none and not torch.cuda.is_available():
        say(f"this CPU has no bfloat16 and emulates it, several times slower than float32: set {setting}")
