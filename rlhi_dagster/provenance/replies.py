"""From a reply to an evaluation item to what made it and what judges made of it.

What belongs here: which rows belong to a reply. What does not: finding rows (``rows``), the model calls (``calls``), and words for the
terminal (``words``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.provenance import Evaluated, Judgement
from rlhi_dagster.provenance.calls import Deed, calls
from rlhi_dagster.provenance.lookup import Row, Rows
from rlhi_dagster.provenance.pairs import persona_lines


def why_reply(lake: Lake, store: Path, response_id: str) -> Evaluated:
    """Everything that made an evaluated reply.

    Args:
        lake: The tables.
        store: Folder of the response store.
        response_id: Of ``responses``: ``recipe/prompt_id``; a beginning that no other reply has is enough.

    Raises:
        ValueError: There is no such reply, or there are several.
    """
    rows = Rows(lake)
    response = rows.response(response_id)
    item = rows.one("eval_prompts", "prompt_id", response["prompt_id"]) or {}
    lines = rows.of("personas", "persona_line_id", item.get("persona_line_ids") or [])
    judged = [row for row in rows.of("judgements", "prompt_id", [response["prompt_id"]]) if row["recipe"] == response["recipe"]]
    judged.sort(key=lambda row: (row["judge"], row["opponent"], row["criterion"], row["order"]))
    compared = rows.of("responses", "response_id", [f"{row['opponent']}/{row['prompt_id']}" for row in judged])
    return Evaluated(
        **{name: response[name] for name in ("response_id", "recipe", "model", "benchmark", "prompt_id", "reply", "error")},
        user_id=item.get("user_id"),
        prompt=item.get("prompt") or [],
        persona=persona_lines(rows, item.get("persona_line_ids") or [], lines),
        reference=item.get("reference"),
        opponents={row["recipe"]: row["reply"] for row in compared},
        judgements=[Judgement(**{field.name: row[field.name] for field in fields(Judgement)}) for row in judged],
        calls=calls(store, _named(response, lines, compared, judged)),
    )


def _named(response: Row, lines: Sequence[Row], compared: Sequence[Row], judged: Sequence[Row]) -> Iterator[tuple[str | None, Deed]]:
    """Every call that the reply and the verdicts on it rest on, with what it did."""
    for rows, did in ((lines, Deed.PERSONA), ([response], Deed.EVALUATED), (compared, Deed.OPPONENT), (judged, Deed.VERDICT)):
        yield from ((row["call_id"], did) for row in rows)
    yield from ((row["opponent_call_id"], Deed.VERDICT) for row in judged)
