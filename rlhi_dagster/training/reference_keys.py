"""Keys of the reference's log-probabilities in the response store.

What belongs here: what determines them, so that an asset can tell from its rows alone which ones its training used. What does not:
computing them (``workers/reference_logps.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rlhi_dagster.engines.models import ModelRef, digest_of
from rlhi_dagster.training.settings import DPOSettings

KIND = "reference"
"""Kind of answers in the response store."""


def reference_key(start: ModelRef, row: Mapping[str, Any], settings: DPOSettings) -> str:
    """Digest of everything that determines what the reference thinks of a pair: two recipes that show it alike share the answer.

    Args:
        start: The model that training starts from.
        row: ``prompt`` (with the persona where the recipe shows it), ``chosen`` and ``rejected`` of ``pair_sets.TRAINING_ROWS``.
        settings: Of the training run; those that bear on rounding count.
    """
    sides = row["chosen"], row["rejected"]
    return digest_of(KIND, start.name, start.revision, [dict(message) for message in row["prompt"]], *sides, _arithmetic(settings))


def told(row: Mapping[str, Any], settings: DPOSettings) -> str:
    """What of the key is neither model nor prompt, as JSON without text: what ``rlhi store explain`` compares."""
    return json.dumps({**_arithmetic(settings), "chosen": digest_of(row["chosen"]), "rejected": digest_of(row["rejected"])})


def _arithmetic(settings: DPOSettings) -> dict[str, bool]:
    """What bears on rounding: bfloat16 has two decimal digits, so that log-probabilities made in other ways are off by tenths.

    Weights are in bfloat16 under adapters, and as shares are gathered; otherwise autocast rounds them where it multiplies.
    """
    return {
        "bf16": settings.bf16,
        "bf16_weights": settings.bf16 and (settings.lora is not None or settings.sharding == "fsdp2"),
        "shared_prefix": settings.shared_prefix,
    }
