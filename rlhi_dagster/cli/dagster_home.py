"""``rlhi home``: the Dagster instance of the outputs in use.

What belongs here: making its folder, and telling what is wrong with it before Dagster fails over it. What does not: what Dagster keeps
there.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import yaml

from rlhi_dagster import profiles
from rlhi_dagster.base.aside import put

SETTINGS = "dagster.yaml"


def home() -> Path:
    """The Dagster instance of the outputs in use, made if it is not there: every other source and profile has its own.

    Raises:
        ValueError: Its settings or its event log are damaged.
    """
    folder = profiles.current().root / "dagster_home"
    folder.mkdir(parents=True, exist_ok=True)
    settings, shipped = folder / SETTINGS, profiles.ROOT / "data" / "dagster_home" / SETTINGS
    found = settings.read_bytes() if settings.is_file() else b""
    if not shipped.is_file():
        if not found.strip():
            raise ValueError(f"{shipped}, the settings of the Dagster instance, was deleted: git restore {shipped}")
    elif shipped.read_bytes().startswith(found) and found != shipped.read_bytes():  # not there, or cut off by a full disk
        put(settings, shipped.read_bytes())
    elif not _is_mapping(found):
        raise ValueError(f"{settings} is damaged: it is no YAML that Dagster reads; delete it, and `rlhi home` makes it anew")
    if told := next(damaged_event_logs(folder, is_thorough=False), None):
        raise ValueError(told)
    return folder.absolute()


def damaged_event_logs(folder: Path, *, is_thorough: bool) -> Iterator[str]:
    """What to tell of each database of an instance that SQLite finds wrong; ``is_thorough`` reads all of it."""
    query = "PRAGMA quick_check(1)" if is_thorough else "SELECT 'ok' FROM sqlite_master UNION SELECT 'ok'"
    for file in sorted(folder.glob("**/*.db")):
        try:
            with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                (found,) = connection.execute(query).fetchone()
        except sqlite3.OperationalError:  # a run is writing to it, or it may not be read: that is no damage
            continue
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            again = f"mv {folder} {folder}.damaged, and launch again: tables and answers stay, the history of runs begins anew"
            yield f"{file}, a part of Dagster's event log, is damaged ({found}): {again}"


def _is_mapping(content: bytes) -> bool:
    try:
        return isinstance(yaml.safe_load(content), dict)
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
