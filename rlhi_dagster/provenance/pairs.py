"""From a pair's id to its lineage.

What belongs here: which rows belong to a pair, and what they say of it. What does not: finding rows (``rows``), the model calls
(``calls``), and words for the terminal (``words``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.conversations.sources.records import FeedbackKind
from rlhi_dagster.online import rounds
from rlhi_dagster.preferences import Source, Strategy
from rlhi_dagster.preferences.merge import OF_CONDITION, OF_KIND, OF_STRATEGY
from rlhi_dagster.provenance import Evidence, Fate, FollowUp, Lineage, Outright, PersonaLine, Side, Turn, Use
from rlhi_dagster.provenance.calls import Deed, calls
from rlhi_dagster.provenance.lookup import Row, Rows
from rlhi_dagster.training import recipes
from rlhi_dagster.training.artefacts import read_pairs


def why(lake: Lake, store: Path, pair_id: str, recipe_folder: str | None = None) -> Lineage:
    """Everything that made a pair.

    Args:
        lake: The tables.
        store: Folder of the response store.
        pair_id: Of ``preference_pairs`` or ``online_pairs``, or of ``rewrite_pairs``, ``reward_pairs``, ``reasoning_pairs`` or
            ``explicit_pairs`` for one that was dropped there; a beginning that no other pair has is enough.
        recipe_folder: Recipes laid over those of the project.

    Raises:
        ValueError: There is no such pair, or there are several.
    """
    rows = Rows(lake)
    table, pair, union = rows.pair(pair_id)
    told = (pair if table == "online_pairs" else union) or {}
    fates = [Fate(name, row["is_kept"], row["drop_reasons"]) for name, row in ((table, pair), ("preference_pairs", union)) if row]
    source = _source(table, pair, recipe_folder)
    turns = _turns(rows, pair.get("turn_id"))
    lines = rows.of("personas", "persona_line_id", pair.get("persona_line_ids") or [])
    error = rows.one("reasoning_errors", "error_id", pair.get("error_id"))
    return Lineage(
        pair_id=pair["pair_id"],
        table=table,
        source=source.value,
        strategy=_strategy(table, pair),
        is_kept=bool(told.get("is_kept", False)),
        fates=fates,
        split=told.get("split"),
        duplicate_of=told.get("duplicate_of"),
        contaminated_by=told.get("contaminated_by"),
        uses=_uses(lake, source, pair, recipe_folder),
        user_id=pair.get("user_id"),
        is_off_policy=bool(pair.get("is_off_policy")),
        condition=rounds.CONDITIONS[source] if table == "online_pairs" else pair.get("condition"),
        round=pair.get("round"),
        model=pair["model"],
        reward_model=pair.get("reward_model"),
        meets_feedback=pair.get("meets_feedback"),
        prompt=pair["prompt"],
        turns=turns,
        follow_up=_follow_up(rows, pair),
        outright=_outright(rows, pair),
        evidence=pair.get("evidence"),
        error=error,
        persona=persona_lines(rows, pair.get("persona_line_ids") or [], lines),
        chosen=Side(pair["chosen"], pair.get("chosen_reward"), pair.get("chosen_id")),
        rejected=Side(pair["rejected"], pair.get("rejected_reward"), pair.get("rejected_id")),
        calls=calls(store, _named(rows, table, pair, turns, lines, error)),
    )


def _source(table: str, pair: Row, recipe_folder: str | None) -> Source:
    if table == "reasoning_pairs":
        return Source.REASONING
    if table == "online_pairs":
        return Source(recipes.load(pair["recipe"], recipe_folder).sources[0])
    if table == "reward_pairs":
        return OF_CONDITION[pair["condition"]]
    return OF_KIND[FeedbackKind(pair["kind"])] if table == "explicit_pairs" else OF_STRATEGY[Strategy(pair["strategy"])]


def _strategy(table: str, pair: Row) -> str:
    ranked = dict.fromkeys(("reward_pairs", "online_pairs"), "best_of_n")
    return (ranked | {"reasoning_pairs": "corrected"}).get(table) or str(pair["kind" if table == "explicit_pairs" else "strategy"])


def _uses(lake: Lake, source: Source, pair: Row, recipe_folder: str | None) -> list[Use]:
    """Recipes of the source, and whether their checkpoints were trained on the pair; of an online round the recipe whose round it is."""
    uses = []
    for name, recipe in recipes.load_all(recipe_folder).items():
        if name == pair["recipe"] if "recipe" in pair else source in recipe.sources and not recipe.rounds:
            trained = read_pairs(lake.artefact_path("checkpoints", name))
            is_trained = None if trained is None else bool((trained["pair_id"] == pair["pair_id"]).any())
            uses.append(Use(name, recipe.method, is_trained))
    return uses


def _turns(rows: Rows, turn_id: str | None) -> list[Turn]:
    """The turns of the conversation up to and with the compared one."""
    if turn_id is None:
        return []
    compared = rows.one("turns", "turn_id", turn_id)
    if compared is None:
        return []
    said = [each for each in rows.of("turns", "conversation_id", [compared["conversation_id"]]) if each["turn"] <= compared["turn"]]
    again = {each["turn_id"]: each for each in rows.of("wildllamachat", "conversation_id", [compared["conversation_id"]])}
    return [
        Turn(
            turn_id=each["turn_id"],
            asked_at=each["asked_at"],
            prompt=each["prompt"],
            reply_id=each["reply_id"],
            logged_reply=each["reply"],
            reply=again.get(each["turn_id"], {}).get("reply"),
            error=again.get(each["turn_id"], {}).get("error"),
        )
        for each in sorted(said, key=lambda each: int(each["turn"]))
    ]


def _follow_up(rows: Rows, pair: Row) -> FollowUp | None:
    said = rows.one("turns", "turn_id", pair.get("follow_up_id"))
    if said is None:
        return None
    label: dict[str, Any] = rows.one("feedback_labels", "turn_id", said["turn_id"]) or {}
    verdict: dict[str, Any] = rows.one("wildllamachat", "turn_id", pair["turn_id"]) or {}
    return FollowUp(
        turn_id=said["turn_id"],
        asked_at=said["asked_at"],
        text=said["prompt"],
        **{name: label.get(name) for name in ("label", "probability", "reattempt_probability", "span", "labeller")},
        applies=verdict.get("follow_up_applies"),
        applies_probability=verdict.get("applies_probability"),
        applies_judge=verdict.get("applies_judge"),
    )


def _outright(rows: Rows, pair: Row) -> list[Outright]:
    """What was said of the compared reply outright, in the order of time."""
    said = rows.of("explicit_feedback", "turn_id", [pair.get("turn_id")])
    found = [Outright(**{each.name: row[each.name] for each in fields(Outright)}) for row in said]
    return sorted(found, key=lambda each: (each.given_at.timestamp() if each.given_at else 0.0, each.feedback_id))


def persona_lines(rows: Rows, shown: list[str], lines: list[Row]) -> list[PersonaLine]:
    """Lines as they were shown, with what supports them.

    Args:
        rows: The tables.
        shown: Ids of the lines.
        lines: Those of them that the table still has.
    """
    known = {line["persona_line_id"]: line for line in lines}
    cited = {row["turn_id"]: row for row in rows.of("turns", "turn_id", [turn for line in lines for turn in line["evidence"]])}
    return [_line(line_id, known.get(line_id, {}), cited) for line_id in shown]


def _line(line_id: str, line: dict[str, Any], cited: dict[str, Row]) -> PersonaLine:
    evidence = line.get("evidence") or []
    quotes = line.get("quotes") or [None] * len(evidence)
    return PersonaLine(
        line_id,
        **{name: line.get(name) for name in ("slot", "line", "valid_from", "valid_until", "writer")},
        evidence=[
            Evidence(turn_id, cited.get(turn_id, {}).get("asked_at"), cited.get(turn_id, {}).get("prompt"), quote)
            for turn_id, quote in zip(evidence, quotes, strict=True)
        ],
    )


def _named(rows: Rows, table: str, pair: Row, turns: list[Turn], lines: list[Row], error: Row | None) -> Iterator[tuple[str | None, Deed]]:
    """Every call that the pair rests on, with what it did."""
    if table == "rewrite_pairs":
        label = rows.one("feedback_labels", "turn_id", pair["follow_up_id"])
        yield from zip((label or {}).get("call_ids") or [], (Deed.LABEL, Deed.SPAN), strict=False)
        for row in rows.of("wildllamachat", "turn_id", [turn.turn_id for turn in turns]):
            yield row["call_id"], Deed.REPLY
            if row["turn_id"] == pair["turn_id"]:
                yield row["applies_call_id"], Deed.APPLIES
    for line in lines:
        yield line["call_id"], Deed.PERSONA
    samples = "online_candidates" if table == "online_pairs" else "candidates"
    for sample in rows.of(samples, "candidate_id", [pair.get("chosen_id"), pair.get("rejected_id")]):
        yield sample["call_id"], Deed.SAMPLE
    if error:
        yield error["call_id"], Deed.REMARK
    ranked = dict.fromkeys(("reward_pairs", "online_pairs"), Deed.REWARD)
    rest = ranked | {"rewrite_pairs": Deed.GONE, "reasoning_pairs": Deed.CORRECTION}
    yield from ((key, rest[table]) for key in pair.get("call_ids") or ())
