"""Tokens where a server does not count them: estimates, which are said to be some."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property

from rlhi_dagster.engines.forecast import CHARACTERS_PER_TOKEN

_log = logging.getLogger(__name__)


class TokenCount:
    """Counts the tokens of texts; says once that it does, and how.

    By the model's tokenizer, if the model's name is a folder or a model of the Hub whose tokenizer is on this machine; else
    ``CHARACTERS_PER_TOKEN``. A chat template's own tokens are not counted.
    """

    def __init__(self, model: str) -> None:
        self._model = model

    def __call__(self, text: str) -> int:
        """Tokens of a text."""
        return self._count(text) if text else 0

    @cached_property
    def _count(self) -> Callable[[str], int]:
        from transformers import AutoTokenizer

        told = "%s: the server does not count tokens, so they, and what they cost, are estimates: %s"
        try:
            tokenizer = AutoTokenizer.from_pretrained(self._model, local_files_only=True, trust_remote_code=False)
        except (ImportError, KeyError, OSError, ValueError):
            _log.warning(told, self._model, f"{CHARACTERS_PER_TOKEN:g} characters a token")
            return lambda text: max(1, round(len(text) / CHARACTERS_PER_TOKEN))
        _log.warning(told, self._model, "counted by the model's tokenizer")
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False))
