"""Reasoning pairs: the corrected solution against the erroneous one.

What belongs here: what the policy is asked, and which corrections become pairs. What does not: which solutions are wrong (``prm800k``),
the remark on them (``simulated_user``), and grading (``reasoning.math_answers``, in ``workers.verify``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

import polars as pl

from rlhi_dagster.base.tables import REASONING_PAIRS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.engines.questions import question, template
from rlhi_dagster.preferences.feedback_talk import mentions_feedback
from rlhi_dagster.reasoning.math_answers import Grade, Solution
from rlhi_dagster.reasoning.simulated_user import numbered

_REMARK = re.compile(
    r"\bstep\s+\d+\s+(?:was|is|has|had|contain(?:s|ed))\s+(?:\w+\s+){0,2}(?:wrong|incorrect|mistaken?|errors?)\b"
    r"|\b(?:mistakes?|errors?)\s+(?:was\s+|is\s+)?in\s+step\s+\d+\b|\bthe\s+(?:\w+\s+)?(?:attempt|remark|reader)\b",
    re.IGNORECASE,
)


class Drop(StrEnum):
    """Why a pair is dropped, in the order in which reasons are looked at."""

    REMARK_FAILED = "remark_failed"
    CORRECTION_FAILED = "correction_failed"
    """No correction, or one that was cut off."""
    ANSWER_UNKNOWN = "answer_unknown"
    CORRECTION_IS_WRONG = "correction_is_wrong"
    """It gives another answer than the known one, or none."""
    ORIGINAL_IS_RIGHT = "original_is_right"
    VERIFICATION_FAILED = "verification_failed"
    """It could not be told in time whether one of the two is right."""
    MENTIONS_FEEDBACK = "mentions_feedback"
    """The correction speaks of the remark, which the trained policy will not have seen."""


def correction_requests(errors: pl.DataFrame, form: Literal["instruction", "dialogue"]) -> list[ChatRequest]:
    """What the policy is asked about each error that has a remark, in order.

    Args:
        errors: ``REASONING_ERRORS``.
        form: As of rewrites: `dialogue` is problem, wrong solution, remark; `instruction` is ``prompts/reasoning_correction.md``.
    """
    asked = _dialogue if form == "dialogue" else _instruction
    return [ChatRequest(asked(row)) for row in errors.filter(pl.col("feedback").is_not_null()).to_dicts()]


def _dialogue(row: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": row["problem"]},
        {"role": "assistant", "content": row["solution"]},
        {"role": "user", "content": row["feedback"]},
    ]


def _instruction(row: Mapping[str, Any]) -> list[dict[str, str]]:
    shown = {"problem": row["problem"], "steps": numbered(row["steps"]), "remark": row["feedback"]}
    return question(template("reasoning_correction"), shown)


def corrections(errors: pl.DataFrame, answers: Sequence[ChatAnswer]) -> pl.DataFrame:
    """Errors with the correction of each.

    Args:
        errors: ``REASONING_ERRORS``.
        answers: To ``correction_requests``, in order.

    Returns:
        ``REASONING_ERRORS`` with ``correction`` (null if there is none, or only a cut or blank one) and ``correction_call_id``.
    """
    given = iter(answers)
    of_row = [next(given) if has_remark else None for has_remark in errors["feedback"].is_not_null()]
    texts = [answer.text if answer and not answer.failure and (answer.text or "").strip() else None for answer in of_row]
    ids = [answer.call_id or None if answer else None for answer in of_row]
    return errors.with_columns(correction=pl.Series(texts, dtype=pl.String()), correction_call_id=pl.Series(ids, dtype=pl.String()))


def to_verify(corrected: pl.DataFrame) -> list[Solution]:
    """The correction and the original of every error that has a correction and a known answer, one after the other.

    The original stops at its first wrong step, so that its last expression is no answer to the problem.
    """
    rows = corrected.filter(pl.col("correction").is_not_null(), pl.col("answer").is_not_null()).to_dicts()
    both = ((Solution(row["answer"], row["correction"]), Solution(row["answer"], row["solution"], announced_only=True)) for row in rows)
    return [solution for pair in both for solution in pair]


def speaks_of_the_remark(correction: str, problem: str) -> bool:
    """Whether a correction gives away that there was an earlier solution, or a remark on it."""
    return mentions_feedback(correction, problem) or (_REMARK.search(correction) is not None and not _REMARK.search(problem))


def reasoning_pairs(corrected: pl.DataFrame, grades: Mapping[Solution, Grade], model: str) -> pl.DataFrame:
    """Corrected against erroneous solutions; kept only where the correction is right, the original is not, and no remark is spoken of.

    Args:
        corrected: What ``corrections`` gives.
        grades: Of everything in ``to_verify``.
        model: Identity of the policy.

    Returns:
        ``REASONING_PAIRS``, one row an error, with every ``Drop`` that applies.
    """
    rows = []
    for row in corrected.to_dicts():
        is_graded = row["correction"] is not None and row["answer"] is not None
        chosen = grades[Solution(row["answer"], row["correction"])] if is_graded else None
        rejected = grades[Solution(row["answer"], row["solution"], announced_only=True)] if is_graded else None
        reasons = [str(reason) for reason in _drops(row, chosen, rejected)]
        rows.append(
            {
                "pair_id": digest_of("reasoning_pair", row["error_id"], model),
                "error_id": row["error_id"],
                "prompt": [{"role": "user", "content": row["problem"]}],
                "chosen": row["correction"],
                "rejected": row["solution"],
                "is_chosen_correct": None if chosen in (None, Grade.UNDECIDED) else chosen is Grade.RIGHT,
                "is_rejected_correct": None if rejected in (None, Grade.UNDECIDED, Grade.NO_ANSWER) else rejected is Grade.RIGHT,
                "is_kept": not reasons,
                "drop_reasons": reasons,
                "model": model,
                "call_ids": [each for each in (row["call_id"], row["correction_call_id"]) if each],
            }
        )
    return REASONING_PAIRS.conform(pl.DataFrame(rows, schema=REASONING_PAIRS.schema))


def _drops(row: Mapping[str, Any], chosen: Grade | None, rejected: Grade | None) -> list[Drop]:
    if row["feedback"] is None:
        return [Drop.REMARK_FAILED]
    if row["correction"] is None:
        return [Drop.CORRECTION_FAILED]
    holds = {
        Drop.ANSWER_UNKNOWN: row["answer"] is None,
        Drop.CORRECTION_IS_WRONG: chosen in (Grade.WRONG, Grade.NO_ANSWER),
        Drop.ORIGINAL_IS_RIGHT: rejected is Grade.RIGHT,
        Drop.VERIFICATION_FAILED: Grade.UNDECIDED in (chosen, rejected),
        Drop.MENTIONS_FEEDBACK: speaks_of_the_remark(row["correction"], row["problem"]),
    }
    return [reason for reason, applies in holds.items() if applies]
