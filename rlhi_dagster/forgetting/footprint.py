"""What a user left in the lake: ids, rows, texts and the model calls behind the rows.

What belongs here: finding. What does not: removing (``removal``) and what of the store belongs to it beyond named calls (``traces``).

A row goes if it names the user or anything of theirs, whoever's it is: a reward under their persona, and the pair that was made from it,
belong to another user, but say something about this one. Such rows come back, made without the user, when their asset is materialized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import CALLS, TABLES

USERS = ("user_id", "persona_user_id", "split_group")
"""Columns that hold fingerprints."""
NAMES = {
    "conversation_id": "conversation",
    "turn_id": "message",
    "follow_up_id": "message",
    "follow_up_turn_id": "message",
    "reply_id": "message",
    "evidence": "message",
    "persona_line_id": "line",
    "persona_line_ids": "line",
    "candidate_id": "candidate",
    "chosen_id": "candidate",
    "rejected_id": "candidate",
    "rewrite_id": "pair",
    "pair_id": "pair",
    "duplicate_of": "pair",
    "prompt_id": "prompt",
    "contaminated_by": "prompt",
    "response_id": "response",
    "judgement_id": "judgement",
}
"""What a column's values name; a list column names several. Two columns of one kind hold ids of the same things."""
_REFERRING = {"evidence", "follow_up_turn_id", "persona_line_ids", "duplicate_of", "contaminated_by"}
"""Columns that name things of another row, perhaps another user's: what they name is not the row's own."""
_ORDER = {"preference_pairs": 0, "reward_pairs": 1, "candidate_rewards": 2, "turns": 4, "conversations": 5}
"""Of tables, beside those without a user column (0) and with one (3): borrowed pairs are found through the rewards."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What names a user in the lake.

    Attributes:
        user_id: The fingerprint.
        ids: Ids of what is theirs, by kind: see ``NAMES``.
        borrowed: Pairs of other users that were ranked, and items that are asked, under this user's persona, and examples of other users
            with this one's words (`pair_id`, `prompt_id`).
    """

    user_id: str
    ids: dict[str, frozenset[str]]
    borrowed: frozenset[str]

    def is_theirs(self, schema: pl.Schema) -> pl.Expr:
        """Whether a row of a table names the user or anything of theirs; never null."""
        found = [pl.col(name) == self.user_id for name in USERS if name in schema]
        found += [_names(name, schema[name], self._of(kind)) for name, kind in NAMES.items() if name in schema]
        return pl.any_horizontal(pl.lit(value=False), *(each.fill_null(value=False) for each in found))

    def rows(self, lake: Lake) -> dict[str, tuple[int, int]]:
        """Rows that go, and those among them that belong to another user, by table; tables without any are left out."""
        counted = {}
        for name, frame in tables(lake):
            schema = frame.collect_schema()
            gone = frame.filter(self.is_theirs(schema)).select(pl.len(), (~self._is_own(schema)).sum().alias("others"))
            counted[name] = gone.collect(engine="streaming").row(0)
        return {name: (gone, others) for name, (gone, others) in counted.items() if gone}

    def calls(self, lake: Lake) -> tuple[frozenset[str], frozenset[str]]:
        """Keys of the model calls behind the rows that go, less those that a row which stays has, too; and the latter."""
        gone: set[str] = set()
        for _, frame in tables(lake):
            gone |= _keys(frame.filter(self.is_theirs(frame.collect_schema())))
        shared: set[str] = set()
        for _, frame in tables(lake):
            shared |= _keys(frame.filter(~self.is_theirs(frame.collect_schema())), gone)
        return frozenset(gone - shared), frozenset(shared)

    def texts(self, lake: Lake) -> tuple[frozenset[str], frozenset[str]]:
        """Texts of the user's own rows, as they stand and without white space around them; and those that others wrote word for word."""
        own: set[str] = set()
        for _, frame in tables(lake):
            schema = frame.collect_schema()
            if "user_id" in schema:
                own |= set(_texts(frame.filter(pl.col("user_id") == self.user_id), schema))
        own |= {text.strip() for text in own}
        known = pl.Series(sorted(own), dtype=pl.String()).implode()
        others: set[str] = set()
        for name in ("turns", "eval_prompts"):
            for frame in (frame for table, frame in tables(lake) if table == name):
                rest = frame.filter(pl.col("user_id").ne_missing(self.user_id))
                prompt = pl.col("prompt") if name == "turns" else pl.col("prompt").list.last().struct.field("content")
                for text in (prompt, *([pl.col("reply")] if name == "turns" else [])):
                    said = pl.concat_list(text, text.str.strip_chars()).explode(empty_as_null=True)
                    met = rest.select(said.alias("text")).filter(pl.col("text").is_in(known)).unique()
                    others |= set(met.collect(engine="streaming")["text"])
        return frozenset(own), frozenset(others)

    def _is_own(self, schema: pl.Schema) -> pl.Expr:
        """Whether a row that goes is of the user alone, not of another one whom it names beside."""
        if "user_id" in schema:
            return pl.col("user_id").eq_missing(self.user_id)
        return _names("turn_id", schema["turn_id"], self._of("message")) if "turn_id" in schema else pl.lit(value=True)

    def _of(self, kind: str) -> frozenset[str]:
        return self.ids.get(kind, frozenset()) | (self.borrowed if kind in ("pair", "prompt") else frozenset())


def footprint(lake: Lake, user_id: str) -> Footprint:
    """Find what is a user's in the lake; a user of whom nothing is there has an empty footprint."""
    ids: dict[str, set[str]] = {kind: set() for kind in NAMES.values()}
    for _, frame in tables(lake):
        schema = frame.collect_schema()
        if "user_id" not in schema:
            continue
        own = frame.filter(pl.col("user_id") == user_id)
        for name, kind in NAMES.items():
            if name in schema and name not in _REFERRING:
                ids[kind] |= set(own.select(pl.col(name).unique()).collect(engine="streaming")[name].drop_nulls())
    found = Footprint(user_id, {kind: frozenset(values) for kind, values in ids.items()}, frozenset())
    return Footprint(user_id, found.ids, _borrowed(lake, found))


def users_like(lake: Lake, beginning: str) -> list[str]:
    """Fingerprints in the lake that begin so, sorted."""
    found: set[str] = set()
    for _, frame in tables(lake):
        for name in USERS:
            if name in frame.collect_schema():
                mine = frame.select(pl.col(name).unique()).filter(pl.col(name).str.starts_with(beginning))
                found |= set(mine.collect(engine="streaming")[name])
    return sorted(found)


def tables(lake: Lake) -> Iterator[tuple[str, pl.LazyFrame]]:
    """Every table that is there, those that are found through another one before it; turns and conversations last.

    In this order a removal that is killed leaves what the next one needs to find the rest.
    """
    for name in sorted(TABLES, key=lambda name: (_ORDER.get(name, 3 if "user_id" in TABLES[name].columns else 0), name)):
        if any(lake.artefact_path(name).glob("*.parquet")):
            yield name, lake.scan(name)


def _borrowed(lake: Lake, own: Footprint) -> frozenset[str]:
    """Of other users: pairs that rest on a reward under this user's persona, examples with the user's words, items with the persona."""
    present, user_id = dict(tables(lake)), own.user_id
    found = pl.DataFrame(schema={"id": pl.String()})
    if {"candidate_rewards", "reward_pairs"} <= set(present):
        shown = present["candidate_rewards"].filter(pl.col("persona_user_id") == user_id).select("turn_id", "condition").unique()
        pairs = present["reward_pairs"].filter(pl.col("user_id") != user_id).join(shown, on=["turn_id", "condition"], how="semi")
        found = pairs.select(pl.col("pair_id").alias("id")).collect(engine="streaming")
    if "follow_up_examples" in present:
        lent = present["follow_up_examples"].filter(pl.col("user_id") != user_id)
        words = _names("follow_up_turn_id", pl.String(), own.ids["message"])
        found = pl.concat([found, lent.filter(words).select(pl.col("pair_id").alias("id")).collect(engine="streaming")])
    if "eval_prompts" in present:
        asked = present["eval_prompts"].filter(pl.col("persona_user_id") == user_id, pl.col("user_id") != user_id)
        found = pl.concat([found, asked.select(pl.col("prompt_id").alias("id")).collect(engine="streaming")])
    return frozenset(found["id"])


def _names(column: str, dtype: pl.DataType, ids: frozenset[str]) -> pl.Expr:
    known = pl.Series(sorted(ids), dtype=pl.String()).implode()
    if isinstance(dtype, pl.List):
        return pl.col(column).list.eval(pl.element().is_in(known)).list.any()
    return pl.col(column).is_in(known)


def _keys(rows: pl.LazyFrame, among: set[str] | None = None) -> set[str]:
    """Keys of the store that rows name, of all or of some."""
    schema = rows.collect_schema()
    wanted = pl.Series(sorted(among), dtype=pl.String()).implode() if among is not None else None
    found: set[str] = set()
    for name in (name for name in schema if name.endswith(CALLS)):
        column = pl.col(name).explode(empty_as_null=True) if isinstance(schema[name], pl.List) else pl.col(name)
        keys = rows.select(column.alias("key")).drop_nulls()
        keys = keys if wanted is None else keys.filter(pl.col("key").is_in(wanted))
        found |= set(keys.unique().collect(engine="streaming")["key"])
    return found


def _texts(rows: pl.LazyFrame, schema: pl.Schema) -> Iterator[str]:
    """Every string of rows, those of messages and lists, too."""
    for name, dtype in schema.items():
        is_list = isinstance(dtype, pl.List)
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        column = pl.col(name).explode(empty_as_null=True) if is_list else pl.col(name)
        if isinstance(inner, pl.Struct):
            column = column.struct.field("content")
        elif inner != pl.String():
            continue
        yield from rows.select(column.alias("text")).drop_nulls().unique().collect(engine="streaming")["text"]
