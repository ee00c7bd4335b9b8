"""Training rows with a thumb each, or with a follow-up each, made of pairs."""

from pathlib import Path

import polars as pl


def unpaired(pairs: Path) -> Path:
    """A file made beside ``pairs``: the first row has its dispreferred reply alone, the next its preferred one, and so on."""
    out = pairs.with_stem(f"{pairs.stem}-thumbs")
    is_up = pl.int_range(pl.len()) % 2 == 1
    pl.read_parquet(pairs).with_columns(pl.when(is_up).then("chosen"), pl.when(~is_up).then("rejected")).write_parquet(out)
    return out


def told(pairs: Path) -> Path:
    """A file made beside ``pairs``: the preferred replies, of which the teacher is told the dispreferred ones."""
    out = pairs.with_stem(f"{pairs.stem}-told")
    rows = pl.read_parquet(pairs)
    asked = [
        [*prompt[:-1], {"role": "user", "content": f"{prompt[-1]['content']}\n\n{rejected}"}]
        for prompt, rejected in rows.select("prompt", "rejected").iter_rows()
    ]
    lacking = pl.lit(None, dtype=pl.String())
    rows.with_columns(told=pl.Series(asked, dtype=rows.schema["prompt"]), rejected=lacking).write_parquet(out)
    return out
