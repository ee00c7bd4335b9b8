"""``rlhi export``: the run's tables for SQL, its preference pairs in the layouts that other trainers read, and checkpoints for the Hub.

What belongs here: choosing pairs, laying them out, the card of a dataset folder, which files of a checkpoint go out, and putting an output
in its place at once. What does not: which pairs there are (``preferences/``), which a recipe draws (``training/pair_sets.py``) and a
model's card (``training/model_card.py``).

Only kept pairs are exported. User fingerprints and times stay behind, and so does every id that several pairs of one user can share.
"""

from __future__ import annotations

from enum import StrEnum

SPLITS = ("train", "validation")


class Format(StrEnum):
    """Layout of an export."""

    DUCKDB = "duckdb"
    """Every table of the run in one DuckDB file."""
    TRL = "trl"
    """JSON lines in TRL's conversational preference layout."""
    SHAREGPT = "sharegpt"
    """JSON lines in the ShareGPT layout for preferences."""
    HUGGINGFACE = "huggingface"
    """A dataset folder: Parquet by split, and a card."""
