"""Data frames of polars, pandas and datasets: each becomes one of polars, and results go back as what was given.

What belongs here: the conversions. What does not: reading logs out of a frame. Neither pandas nor datasets is imported unless a frame of
theirs is given.
"""

from __future__ import annotations

from typing import Any

import polars as pl


def to_polars(given: Any) -> pl.DataFrame:
    """The rows of a frame of polars (also a lazy one), of pandas, or of a ``datasets.Dataset``.

    Raises:
        ValueError: It is none of these, or holds what no table can.
    """
    if isinstance(given, pl.DataFrame | pl.LazyFrame):
        return given.lazy().collect()
    try:
        match _library(given):
            case "pandas":
                return pl.from_pandas(given)
            case "datasets":
                return pl.DataFrame(given.to_polars())
    except AttributeError as error:
        raise ValueError(f"{type(given).__name__} is no table: give one split of it, such as given['train']") from error
    except Exception as error:  # of pyarrow, polars or pandas
        raise ValueError(f"the frame cannot be read as a table: {error}") from error
    raise ValueError(
        f"{type(given).__name__} is no frame that can be read: give one of polars or pandas, a datasets.Dataset, or the path of a file"
    )


def like(found: pl.DataFrame, given: Any) -> Any:
    """A result as a frame of the library that ``given`` is of; of polars if it is of none."""
    match _library(given):
        case "pandas":
            return found.to_pandas()
        case "datasets":
            import datasets

            return datasets.Dataset.from_polars(found)
    return found


def _library(given: Any) -> str:
    return type(given).__module__.partition(".")[0]
