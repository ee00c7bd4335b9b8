"""Why an answer was computed although a similar one was there: what differs between their requests.

What belongs here: finding an answer, the earlier ones most like it, and naming the difference. What does not: the words on the terminal
(``cli/store_command.py``). Requests are compared by the digests and settings that the store remembers (``engines.base.Trace``), never by
text.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.store import uses
from rlhi_dagster.store.compaction import Tell, folders
from rlhi_dagster.store.search import SEGMENT, Narrow, of, search
from rlhi_dagster.store.segments import ANSWERED_AT, ERRORS, FINAL, listing, read_columns, stored_schema, written_at

_COMPARED = ("key", "message_id", "history_id", "system_id", "sample_index", "settings", ANSWERED_AT)
_SCHEMA = pl.Schema({**{name: stored_schema("chat")[name] for name in _COMPARED}, "model": pl.String()})
_PARTS = ("system_id", "history_id", "sample_index")
"""In the order in which a difference of one of them alone counts as the nearest."""
_LONGEST_SHOWN = 60
_AT_ONCE = 1_000
"""Answers that are compared together: many share a message with many earlier ones."""
_WITHOUT_REVISION = "@[^@]*$"


class Reason(StrEnum):
    """What is different from the earlier answer that is most like one."""

    MODEL = "another model"
    REVISION = "another revision of the model"
    SETTINGS = "other settings"
    PERSONA = "another system message (persona)"
    HISTORY = "another history before the same message"
    RETRIED = "the earlier answer was an error of the moment"
    SAMPLE = "another sample of the same request"
    KEY = "the same request with another key (how keys are made changed)"
    NEW = "nothing like it was there: the message is new"
    UNTRACED = "unknown: the store does not remember what was asked"


_REASONS = {
    "model": Reason.MODEL,
    "revision": Reason.REVISION,
    "settings": Reason.SETTINGS,
    "system_id": Reason.PERSONA,
    "history_id": Reason.HISTORY,
    "sample_index": Reason.SAMPLE,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """An answer beside the earlier one that is most like it.

    Attributes:
        key: Of the answer.
        reasons: What is different; one or several.
        earlier_key: Of the earlier answer; ``None`` if there is none like it.
        earlier_model: Folder name of its model.
        earlier_at: When it was kept.
        settings: Settings that differ, each as ``name old -> new``.
    """

    key: str
    reasons: tuple[Reason, ...]
    earlier_key: str | None = None
    earlier_model: str | None = None
    earlier_at: datetime | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Where an answer is.

    Attributes:
        kind: Of answers.
        folder: Of its model.
        segment: The file.
        row: The row, without its text.
    """

    kind: str
    folder: Path
    segment: str
    row: dict[str, Any]


def locate(root: Path, prefix: str) -> list[Found]:
    """Answers whose key begins with ``prefix``, one a place."""
    return list(_places(root, lambda rows: rows.filter(pl.col("key").is_between(pl.lit(prefix), pl.lit(f"{prefix}g")))))


def located(root: Path, keys: Collection[str]) -> dict[str, Found]:
    """Where the answers of whole keys are, final ones before errors of the moment; keys that the store lacks are left out."""
    found: dict[str, Found] = {}
    for each in _places(root, of(pl.Series(sorted(keys), dtype=pl.String()))) if keys else ():
        found.setdefault(each.row["key"], each)
    return found


def _places(root: Path, narrow: Narrow) -> Iterator[Found]:
    """Wanted answers folder by folder, in each the final ones from the oldest, then the errors of the moment from the newest."""
    for kind, folder in folders(root):
        columns = [name for name in stored_schema(kind) if name not in {"text", "vector"}]
        for prefix in (FINAL, ERRORS):
            rows = search(folder, kind, prefix, narrow, columns).sort(SEGMENT, "key", descending=[prefix == ERRORS, False])
            for row in rows.iter_rows(named=True):
                file = Path(row.pop(SEGMENT))
                yield Found(kind, folder, file.name, row | {ANSWERED_AT: row[ANSWERED_AT] or written_at(file)})


def explain(found: Found, tell: Tell = lambda *_: None) -> Comparison:
    """Compare one answer with all that were there before it."""
    row = pl.DataFrame([found.row | {"model": found.folder.name}], schema_overrides=_SCHEMA)
    return _compared(found.folder.parents[1], found.kind, _completed(row), tell)[0]


def explain_last_run(root: Path, asset: str, tell: Tell = lambda *_: None) -> tuple[list[uses.Record], int, list[Comparison]]:
    """Compare the answers that an asset's last run made with those that were there before.

    Returns:
        The run's records, the number of answers that it used, and a comparison for each that is new in it.
    """
    records, used = uses.last_run(root, asset)
    comparisons: list[Comparison] = []
    for (kind,), of_kind in used.group_by("kind", maintain_order=True):
        of_models = of_kind.group_by("model", maintain_order=True)
        new = pl.concat([_new(root / str(kind) / str(model), str(kind), rows["key"], records[0].since) for (model,), rows in of_models])
        comparisons += _compared(root, str(kind), new, tell)
    return records, len(used), comparisons


def _read(file: Path, kind: str) -> pl.DataFrame:
    names = [name for name in _COMPARED if name in stored_schema(kind)]
    return _completed(read_columns(file, kind, names).with_columns(model=pl.lit(file.parent.name)))


def _completed(rows: pl.DataFrame) -> pl.DataFrame:
    """The compared columns; null where a kind of answer has none."""
    return rows.select((pl.col(name) if name in rows.columns else pl.lit(None)).cast(dtype).alias(name) for name, dtype in _SCHEMA.items())


def _new(folder: Path, kind: str, keys: pl.Series, since: datetime | None) -> pl.DataFrame:
    """Those of ``keys`` that were answered after ``since``."""
    parts = [pl.DataFrame(schema=_SCHEMA)]
    for name in [*listing(folder, FINAL), *listing(folder, ERRORS)]:
        rows = _read(folder / name, kind)
        is_new = pl.lit(value=True) if since is None else pl.col(ANSWERED_AT) > since
        parts.append(rows.filter(is_new, pl.col("key").is_in(keys.implode())))
    return pl.concat(parts).unique("key", keep="first", maintain_order=True)


def _compared(root: Path, kind: str, new: pl.DataFrame, tell: Tell) -> list[Comparison]:
    """Compare answers with those that were kept before the first of them."""
    traced = new.filter(pl.col("message_id").is_not_null())
    untraced = [Comparison(key, (Reason.UNTRACED,)) for key in new.filter(pl.col("message_id").is_null())["key"]]
    earlier = _earlier(root, kind, traced, tell) if len(traced) else pl.DataFrame(schema=_SCHEMA)
    found = [_of_row(row) for part in traced.iter_slices(_AT_ONCE) for row in _nearest(part, earlier).iter_rows(named=True)]
    return [*found, *untraced]


def _earlier(root: Path, kind: str, new: pl.DataFrame, tell: Tell) -> pl.DataFrame:
    """Answers kept before all of ``new`` that share a message with one, of all models; the errors of the moment of the same keys too."""
    first, messages, keys = new[ANSWERED_AT].min(), new["message_id"].unique().implode(), new["key"].implode()
    names = [
        (folder / name, pl.col("message_id").is_in(messages) if prefix == FINAL else pl.col("key").is_in(keys))
        for of_kind, folder in folders(root)
        if of_kind == kind
        for prefix in (FINAL, ERRORS)
        for name in listing(folder, prefix)
    ]
    parts = [pl.DataFrame(schema=_SCHEMA)]
    for done, (file, is_alike) in enumerate(names, 1):
        with suppress(FileNotFoundError):  # merged into another segment meanwhile: what it held may be missed
            parts.append(_read(file, kind).filter(is_alike, pl.col(ANSWERED_AT) < first))
        tell(done, len(names))
    same = [name for name in _SCHEMA if name not in {"key", ANSWERED_AT}]
    retried = pl.col("key").is_in(keys)
    found = pl.concat(parts)
    return pl.concat([found.filter(retried), found.filter(~retried).sort(ANSWERED_AT, descending=True).unique(same, keep="first")])


def _nearest(new: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    """Each answer beside the earlier one with the fewest differences, the newest of those; without one beside nulls."""
    pairs = new.join(earlier, on="message_id", how="left", suffix="_earlier").with_columns(
        is_retried=pl.col("key") == pl.col("key_earlier"),
        has_other_model=_name("model") != _name("model_earlier"),
        has_other_revision=(_name("model") == _name("model_earlier")) & (pl.col("model") != pl.col("model_earlier")),
        **{f"has_other_{name}": pl.col(name).ne_missing(pl.col(f"{name}_earlier")) for name in ("settings", *_PARTS)},
    )
    differences = pl.sum_horizontal(pl.col("^has_other_.*$").cast(pl.Int32))
    # Of equally many, the part that is nearer to the answer counts more; other samples of a request are always there.
    rank = 10 * differences + sum(place * pl.col(f"has_other_{name}").cast(pl.Int32) for place, name in enumerate(_PARTS, 1))
    ranked = pairs.with_columns(rank=pl.when("is_retried").then(-1).otherwise(rank))
    return ranked.sort("key", "rank", "answered_at_earlier", descending=[False, False, True]).unique(
        "key", keep="first", maintain_order=True
    )


def _name(column: str) -> pl.Expr:
    return pl.col(column).str.replace(_WITHOUT_REVISION, "")


def _of_row(row: dict[str, Any]) -> Comparison:
    if row["key_earlier"] is None:
        return Comparison(row["key"], (Reason.NEW,))
    found = [reason for name, reason in _REASONS.items() if row[f"has_other_{name}"]]
    reasons = (Reason.RETRIED,) if row["is_retried"] else tuple(found) or (Reason.KEY,)
    settings = differing(row["settings_earlier"], row["settings"]) if Reason.SETTINGS in reasons else ()
    return Comparison(row["key"], reasons, row["key_earlier"], row["model_earlier"], row["answered_at_earlier"], settings)


def differing(old: str | None, new: str | None) -> tuple[str, ...]:
    """Settings that differ, each as ``name old -> new``; of long ones only the name."""
    before, after = (json.loads(text) if text else {} for text in (old, new))
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return tuple(f"{name} {_short(before.get(name))} -> {_short(after.get(name))}" for name in names)


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value) if isinstance(value, list | dict) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"({len(text)} characters)"
