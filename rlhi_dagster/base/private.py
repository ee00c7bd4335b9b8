"""Who on this machine may read what a process writes: its owner, and nobody else.

What belongs here: the one call by which a process says so. What does not: secrets, whose files have that mode whatever is said here
(``profiles/salts.py``).

Tables, model answers, job files, event logs, TensorBoard's files, the report and exports hold texts of people. They are made by Polars,
Arrow, DuckDB, SQLite, torch and Dagster alike, so it is said to the operating system, and processes that this one starts inherit it.
"""

from __future__ import annotations

import os


def only_owner() -> None:
    """Make files and folders from now on for their owner only; those that are there keep their modes."""
    os.umask(os.umask(0o077) | 0o077)
