"""Training rows with a thumb each, made of pairs."""

from pathlib import Path

import polars as pl


def unpaired(pairs: Path) -> Path:
    """A file made beside ``pairs``: the first row has its dispreferred reply alone, the next its preferred one, and so on."""
    out = pairs.with_stem(f"{pairs.stem}-thumbs")
    is_up = pl.int_range(pl.len()) % 2 == 1
    pl.read_parquet(pairs).with_columns(pl.when(is_up).then("chosen"), pl.when(~is_up).then("rejected")).write_parquet(out)
    return out
