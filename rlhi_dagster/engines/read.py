"""Reading answers out of the store by their keys, once all of them are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

import polars as pl

from rlhi_dagster.engines.base import ChatAnswer, RewardAnswer
from rlhi_dagster.store.responses import ResponseStore


class NotAnsweredError(LookupError):
    """The store lacks an answer that was read as if complete."""


def read_chat(keys: Sequence[str], store: ResponseStore) -> list[ChatAnswer]:
    """The stored answers to ``keys``, in order.

    Raises:
        NotAnsweredError: Some key has no answer; the message counts them.
    """
    return _read(keys, store, ChatAnswer)


def read_rewards(keys: Sequence[str], store: ResponseStore) -> list[RewardAnswer]:
    """The stored rewards of ``keys``, in order; errors as of ``read_chat``."""
    return _read(keys, store, RewardAnswer)


_Answer = TypeVar("_Answer", ChatAnswer, RewardAnswer)


def _read(keys: Sequence[str], store: ResponseStore, kind: type[_Answer]) -> list[_Answer]:
    rows = store.lookup(pl.Series("key", keys, dtype=pl.String())).with_columns(call_id="key")
    rows = rows.select("key", *(field.name for field in fields(kind) if field.name in rows.columns))
    found = {row[0]: kind(*row[1:]) for row in rows.iter_rows()}
    lacking = sum(key not in found for key in keys)
    if lacking:
        raise NotAnsweredError(f"{lacking} of {len(keys)} requests have no answer in {store.folder}")
    return [found[key] for key in keys]
