"""UserEval: the latest requests of users that training never sees, and some of their follow-ups.

What belongs here: choosing the items, giving each the persona of its moment, and the proofs of whose they are and of what they know. What
does not: the same items under other personas (``persona_conditions``), how personas are written and cut off in time
(``rlhi_dagster.personas``), and replies or verdicts.

A follow-up is asked after the logged history, so it may speak about a reply that the evaluated model did not write; its numbers are told
apart from those of first requests. No persona rests on the conversation that it is shown in.
"""

from __future__ import annotations

from typing import Protocol

import polars as pl

from rlhi_dagster.base.findings import Finding
from rlhi_dagster.base.tables import EVAL_PROMPTS, MESSAGES
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.evaluation import Benchmark

OWN = "own"


class Snapshot(Protocol):
    """Adds ``persona`` and ``persona_line_ids``, as known strictly before each moment, to the rows of ``moments``."""

    def __call__(self, personas: pl.DataFrame, moments: pl.DataFrame, /) -> pl.DataFrame:
        """Return ``moments`` (which has ``turn_id``, ``user_id`` and ``asked_at``) with the two columns added."""


def openings(turns: pl.LazyFrame, users: pl.DataFrame, part: str) -> pl.DataFrame:
    """Opening turns of a part's users: the columns of ``TURNS`` and ``earlier_conversations``.

    Earlier are all conversations of the user that started strictly before, template traffic included.

    Args:
        turns: ``TURNS``; only these rows are collected.
        users: ``USERS``; ``split`` decides who is in the part.
        part: Whose requests, `test` or `tuning`.
    """
    evaluated = users.lazy().filter(pl.col("split") == part).select("user_id")
    earlier = (pl.col("asked_at").rank("min").over("user_id") - 1).cast(pl.Int64).alias("earlier_conversations")
    of_part = turns.filter(pl.col("turn") == 1).join(evaluated, on="user_id", how="semi")
    return of_part.with_columns(earlier).sort("user_id", "asked_at", "conversation_id").collect()


def user_eval_prompts(opened: pl.DataFrame, personas: pl.DataFrame, per_user: int, snapshot: Snapshot) -> pl.DataFrame:
    """The evaluated first requests: of each user, the opening requests of the latest ``per_user`` conversations.

    Template traffic is passed over. Conversations that start at the same moment are told apart by their id, so the choice is
    the same on every run.

    Args:
        opened: As `openings` gives them.
        personas: ``PERSONAS``.
        per_user: Most items a user gets; at least 1.
        snapshot: Gives the persona as of a moment.

    Returns:
        ``EVAL_PROMPTS`` for the benchmark ``user_eval``.

    Raises:
        ValueError: ``per_user`` is below 1, or the snapshot lost or repeated items.
    """
    if per_user < 1:
        raise ValueError(f"per_user must be at least 1, not {per_user}")
    chosen = latest(opened.filter(pl.col("template_id").is_null()), per_user)
    message = pl.struct(pl.lit("user").alias("role"), pl.col("prompt").alias("content"))
    return _items(chosen.with_columns(prompt=pl.concat_list(message), began_at="asked_at"), personas, snapshot, Benchmark.USER_EVAL)


def follow_up_prompts(
    turns: pl.LazyFrame, opened: pl.DataFrame, personas: pl.DataFrame, per_user: int, snapshot: Snapshot, seed: int
) -> pl.DataFrame:
    """The evaluated follow-ups: one each, drawn by ``seed``, of the latest ``per_user`` conversations of a user that have any.

    The item's messages are the logged ones up to the follow-up; its persona is that of the conversation's beginning.

    Args:
        turns: ``TURNS``; those of the chosen conversations are collected.
        opened: As `openings` gives them; template traffic is passed over.
        personas: ``PERSONAS``.
        per_user: Most items a user gets; 0 for none.
        snapshot: Gives the persona as of a moment.
        seed: Of the draws.

    Returns:
        ``EVAL_PROMPTS`` for the benchmark ``user_eval_follow_ups``.
    """
    begun = opened.filter(pl.col("template_id").is_null()).select("conversation_id", "earlier_conversations", began_at="asked_at")
    turns_of = turns.filter(pl.col("turn") > 1).join(begun.lazy(), on="conversation_id").select("turn_id", "conversation_id", "user_id")
    drawn = turns_of.collect().with_columns(
        draw=pl.col("turn_id").map_elements(lambda turn: digest_of("follow_up", turn, seed), return_dtype=pl.String())
    )
    one_each = drawn.sort("conversation_id", "draw").unique("conversation_id", keep="first", maintain_order=True)
    chosen = latest(one_each.join(begun, on="conversation_id").with_columns(asked_at="began_at"), per_user)
    if chosen.is_empty():
        return EVAL_PROMPTS.empty()
    columns = ("turn_id", "conversation_id", "turn", "asked_at", "prompt", "reply")
    said = turns.join(chosen.lazy(), on="conversation_id", how="semi").select(columns)
    logged = said.sort("conversation_id", "turn").collect()
    by_conversation = logged.partition_by("conversation_id", as_dict=True)
    histories = [_history(by_conversation[row["conversation_id"],], row["turn_id"]) for row in chosen.iter_rows(named=True)]
    asked = chosen.drop("asked_at").with_columns(prompt=pl.Series(histories, dtype=MESSAGES))
    asked = asked.join(logged.select("turn_id", "turn", "asked_at"), on="turn_id", how="left", validate="1:1")
    return _items(asked, personas, snapshot, Benchmark.USER_EVAL_FOLLOW_UPS)


def only_the_chosen_users_are_evaluated(rows: pl.LazyFrame, users: pl.LazyFrame, part: str) -> Finding:
    """Every user of an evaluation item is known and in the part that the profile evaluates, `test` or `tuning`; at least one is.

    So a run that tries settings on `tuning` users has touched no test user, and no evaluated user is trained on.

    Args:
        rows: Column ``user_id``; items without a user are not concerned.
        users: Columns ``user_id`` and ``split``.
        part: Of the profile's section evaluation, ``users``.
    """
    seen = rows.select("user_id").drop_nulls().unique().join(users.select("user_id", "split"), on="user_id", how="left")
    counts = dict(seen.group_by("split").len().collect(engine="streaming").iter_rows())
    numbers = {f"{name or 'unknown'}_users": n for name, n in sorted(counts.items(), key=str)}
    return Finding(set(counts) == {part}, {"evaluated": part, **numbers})


def personas_are_of_earlier_conversations(rows: pl.LazyFrame, personas: pl.LazyFrame, turns: pl.LazyFrame) -> Finding:
    """Every persona line shown at an item is of the user named, and what it cites was said in conversations that began before the item's.

    An item without a persona names nobody, and no item that shows somebody else's persona shows the own user's.

    Args:
        rows: ``EVAL_PROMPTS``.
        personas: ``PERSONAS``.
        turns: ``TURNS``; all of them, for what is cited may lie in any month.
    """
    items = rows.filter(pl.col("turn_id").is_not_null())
    is_own, is_shown = pl.col("persona_user_id").eq_missing(pl.col("user_id")), pl.col("persona") != ""
    is_right = pl.when(pl.col("persona_condition") == "shuffled").then(is_shown & ~is_own).otherwise(is_own == is_shown)
    named = items.select((~is_right | (is_shown & pl.col("persona_user_id").is_null())).sum())
    begun = turns.filter(pl.col("turn") == 1).select("conversation_id", began_at="asked_at")
    said = turns.select("turn_id", "conversation_id").join(begun, on="conversation_id", how="left")
    uses = items.select("turn_id", "persona_user_id", persona_line_id="persona_line_ids").explode("persona_line_id", empty_as_null=True)
    lines = personas.select("persona_line_id", "user_id", "evidence")
    shown = uses.drop_nulls("persona_line_id").join(lines, on="persona_line_id", how="left").join(said, on="turn_id", how="left").collect()
    cited = shown.lazy().explode("evidence", empty_as_null=True).drop_nulls("evidence")
    places = said.rename({"turn_id": "evidence", "conversation_id": "cited_conversation", "began_at": "cited_began_at"})
    met = cited.join(places, on="evidence", how="left").collect(engine="streaming")
    is_earlier = (pl.col("cited_began_at") < pl.col("began_at")) & (pl.col("cited_conversation") != pl.col("conversation_id"))
    counts = {
        "wrongly_named_items": int(named.collect().item() or 0),
        "lines_of_others": shown.filter(pl.col("user_id").ne_missing(pl.col("persona_user_id"))).height,
        "not_of_earlier_conversations": met.filter(~is_earlier.fill_null(value=False)).height,
    }
    return Finding(not any(counts.values()), {"uses": len(shown), **counts})


def latest(rows: pl.DataFrame, per_user: int, name: str = "conversation_id") -> pl.DataFrame:
    """Of each user the latest ``per_user`` rows, newest first; those of one moment are told apart by the column ``name``."""
    newest_first = rows.sort("user_id", "asked_at", name, descending=[False, True, True])
    return newest_first.filter(pl.int_range(pl.len()).over("user_id") < per_user)


def _history(logged: pl.DataFrame, turn_id: str) -> list[dict[str, str]]:
    """The messages of a conversation up to and with a user's message; a turn without a reply has none."""
    messages: list[dict[str, str]] = []
    for row in logged.iter_rows(named=True):
        messages.append({"role": "user", "content": row["prompt"]})
        if row["turn_id"] == turn_id:
            return messages
        messages += [{"role": "assistant", "content": row["reply"]}] if row["reply"] is not None else []
    raise ValueError(f"turn {turn_id} is not among the turns of its conversation")


def _items(chosen: pl.DataFrame, personas: pl.DataFrame, snapshot: Snapshot, benchmark: Benchmark) -> pl.DataFrame:
    """``EVAL_PROMPTS`` of requests with the persona as it was when their conversation began (``began_at``)."""
    if chosen.is_empty():
        return EVAL_PROMPTS.empty()
    known = snapshot(personas, chosen.select("turn_id", "user_id", asked_at="began_at")).select("turn_id", "persona", "persona_line_ids")
    if known["turn_id"].n_unique() != len(known) or len(known) != len(chosen):
        raise ValueError(f"the persona snapshot returned {len(known)} rows for {len(chosen)} requests; one each is needed")
    items = chosen.join(known, on="turn_id", how="left", validate="1:1").with_columns(
        prompt_id=pl.format("{}:{}", pl.lit(benchmark.value), "turn_id"),
        benchmark=pl.lit(benchmark.value),
        prompt=pl.col("prompt").cast(MESSAGES),
        persona=pl.col("persona").fill_null(""),
        persona_line_ids=pl.col("persona_line_ids").fill_null(pl.lit([], dtype=pl.List(pl.String))),
        persona_condition=pl.lit(OWN),
        persona_user_id=pl.when(pl.col("persona").fill_null("") != "").then("user_id"),
        known_of_user=pl.lit(""),
        reference=pl.lit(None, dtype=pl.String),
        tolerance=pl.lit(None, dtype=pl.Float64),
    )
    return EVAL_PROMPTS.conform(items)
