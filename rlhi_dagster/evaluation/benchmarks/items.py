"""What the benchmarks share in loading: files of JSON lines, items, opponents, and later turns of a dialogue."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.base.tables import EVAL_PROMPTS, RESPONSES
from rlhi_dagster.evaluation import Benchmark


@dataclass(frozen=True, slots=True)
class Loaded:
    """A benchmark's items and what they are compared with.

    Attributes:
        items: ``EVAL_PROMPTS``.
        opponents: ``RESPONSES`` of the published baselines, `recipe` being the baseline's name; without rows where the folder has none or
            the benchmark needs none. Of several baselines each has replies to its own items only.
    """

    items: pl.DataFrame
    opponents: pl.DataFrame


def item(
    benchmark: Benchmark, name: str, turns: Sequence[str], reference: str | None = None, tolerance: float | None = None
) -> dict[str, Any]:
    """A row of ``EVAL_PROMPTS``; of a dialogue `prompt` has the user's messages alone, see `with_earlier_replies`."""
    return dict.fromkeys(EVAL_PROMPTS.columns) | {
        "prompt_id": f"{benchmark}:{name}",
        "benchmark": benchmark.value,
        "prompt": [{"role": "user", "content": turn} for turn in turns],
        "persona": "",
        "persona_line_ids": [],
        "reference": reference,
        "tolerance": tolerance,
    }


def items(rows: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of rows.

    Raises:
        ValueError: Two rows have the same `prompt_id`.
    """
    frame = EVAL_PROMPTS.conform(pl.DataFrame(list(rows), schema=EVAL_PROMPTS.schema, orient="row"))
    repeated = frame.filter(pl.col("prompt_id").is_duplicated())["prompt_id"]
    if len(repeated):
        raise ValueError(f"{repeated[0]} is there more than once")
    return frame


def responses(benchmark: Benchmark, recipe: str, replies: Mapping[str, str | None]) -> pl.DataFrame:
    """``RESPONSES`` of a published model from its replies by item (`prompt_id`)."""
    rows = [
        dict.fromkeys(RESPONSES.columns)
        | {"response_id": f"{recipe}/{prompt_id}", "recipe": recipe, "prompt_id": prompt_id, "benchmark": benchmark.value}
        | {"reply": reply, "model": recipe}
        for prompt_id, reply in replies.items()
    ]
    return RESPONSES.conform(pl.DataFrame(rows, schema=RESPONSES.schema, orient="row"))


def with_earlier_replies(prompts: pl.DataFrame, replies: Mapping[str, str | None]) -> pl.DataFrame:
    """The items of later turns with the model's replies to the earlier ones put in.

    Args:
        prompts: ``EVAL_PROMPTS`` whose `prompt` has the user's messages of a dialogue; an item of turn n is called ``NAME#n``.
        replies: The model's replies to earlier turns by `prompt_id`.

    Returns:
        The items in order; those of whose earlier turns one has no reply are left out.
    """
    filled = []
    for row in prompts.iter_rows(named=True):
        name, _, turn = row["prompt_id"].rpartition("#")
        earlier = [replies.get(f"{name}#{number}") for number in range(1, int(turn))]
        if None not in earlier:
            said = [message for asked, reply in zip(row["prompt"], earlier, strict=False) for message in _exchange(asked, reply)]
            filled.append(row | {"prompt": [*said, row["prompt"][-1]]})
    return pl.DataFrame(filled, schema=EVAL_PROMPTS.schema)


def _exchange(asked: Mapping[str, str], reply: str | None) -> list[Mapping[str, str]]:
    return [asked, {"role": "assistant", "content": reply or ""}]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines, also with ``.gz``.

    Raises:
        ValueError: A line is no JSON object; the message has its number.
    """
    return [row for _, row in numbered(path)]


def numbered(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in a file of JSON lines, also with ``.gz``, each with the number of its line, from 1.

    Raises:
        ValueError: As of `json_lines`.
    """
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    for number, line in enumerate(text.split("\n"), 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is no object")
        if row:
            yield number, row


def file_in(folder: Path, *names: str) -> Path:
    """The first of ``names``, plain or with ``.gz``, that the folder has.

    Raises:
        ValueError: None is there.
    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise ValueError(f"{folder}: none of {', '.join(names)} is there, plain or with .gz")


def file_at(location: Path, *names: str) -> Path:
    """The location itself where it is a file, else what `file_in` finds in it.

    Raises:
        ValueError: As of `file_in`.
    """
    return location if location.is_file() else file_in(location, *names)
