"""Requests as rows of a Parquet file: how an asset hands them to its worker.

Samples of the same messages are one row, in a file and in memory: 64 candidates of a long prompt need it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import polars as pl

from rlhi_dagster.engines.base import ChatRequest

_SCHEMA = {
    "messages": pl.List(pl.Struct({"role": pl.String(), "content": pl.String()})),
    "choices": pl.List(pl.String()),
    "json_schema": pl.String(),
    "keys": pl.List(pl.String()),
    "sample_indices": pl.List(pl.Int32()),
}


def chat_rows(requests: Mapping[str, ChatRequest]) -> pl.DataFrame:
    """Requests by key as rows; samples that follow one another share one."""
    groups = groupby(requests.items(), key=lambda item: (item[1].messages, item[1].choices, item[1].json_schema))
    rows = []
    for (messages, choices, json_schema), group in groups:
        samples = list(group)
        rows.append((messages, list(choices), json_schema, [key for key, _ in samples], [each.sample_index for _, each in samples]))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def chat_requests(rows: pl.DataFrame) -> dict[str, ChatRequest]:
    """The requests by key of ``chat_rows``."""
    return {
        key: ChatRequest(row["messages"], index, tuple(row["choices"]), row["json_schema"])
        for row in rows.iter_rows(named=True)
        for key, index in zip(row["keys"], row["sample_indices"], strict=True)
    }
