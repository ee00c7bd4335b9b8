"""Which columns of the tables are those of an earlier table, unchanged: what the UI calls column lineage.

What belongs here: columns whose values a table takes over from a row of a table that it is made from. What does not: columns that are
computed from others, as labels, rewards and personas are. ``tests.passed`` compares the values of every one that stands here, for a
lineage that is false is worse than none.

An example first. A row of ``rewrites`` has user, month and feedback of one row of ``wildllamachat``, and its ``original`` is that row's
reply, or the logged one. So `PASSED` has three entries for it; the last two are about the same column, of which either holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True, slots=True)
class Passed:
    """Columns that a row takes over from one row of another table.

    Attributes:
        table: The other table.
        columns: Name of each there, by its name here.
    """

    table: str
    columns: Mapping[str, str]


def _of(table: str, *same: str, **renamed: str) -> Passed:
    return Passed(table, {**{name: name for name in same}, **renamed})


_TURN = ("turn_id", "user_id", "month", "asked_at")
_PERSONA = ("persona", "persona_line_ids")
_SIDES = ("prompt", "chosen", "rejected")
_REWARDS = ("reward_model", "chosen_reward", "rejected_reward")
_ONLINE = (_of("preference_pairs", "split", "turn_id", "user_id", "asked_at", "prompt"), _of("preference_pairs", *_PERSONA))
"""What rounds take over of pairs; personas are empty where a recipe shows none."""
_REPEATED = _of("eval_prompts", contaminated_by="prompt_id")

PASSED: Mapping[str, tuple[Passed, ...]] = {
    "turns": (_of("conversations", "conversation_id", "user_id", "month", "template_id"),),
    "users": (_of("conversations", "user_id"),),
    "feedback_labels": (_of("turns", "turn_id", "conversation_id", "user_id", "month", "turn"),),
    "unmet_wishes": (_of("feedback_labels", "turn_id", "conversation_id", "user_id", "month"), _of("turns", "asked_at")),
    "wildllamachat": (
        _of("turns", *_TURN, "conversation_id", "turn", "prompt", logged_reply="reply"),
        _of("turns", follow_up_id="turn_id", follow_up="prompt"),
    ),
    "personas": (_of("turns", "user_id"),),
    "rewrites": (
        _of("wildllamachat", *_TURN, "follow_up_id", feedback="follow_up"),
        _of("wildllamachat", original="reply"),
        _of("wildllamachat", original="logged_reply"),
    ),
    "rewrite_pairs": (
        _of(
            "rewrites",
            *(*_TURN, "follow_up_id", "strategy", "prompt", "is_off_policy", "meets_feedback", *_PERSONA, "model"),
            pair_id="rewrite_id",
            rejected="original",
            chosen="rewrite",
        ),
    ),
    "explicit_pairs": (
        _of("explicit_feedback", "feedback_id", "turn_id", "user_id", "month", "kind", "giver"),
        _of("turns", "asked_at"),
        *(
            _of(table, **{side: column})
            for side in ("chosen", "rejected")
            for table, column in (("explicit_feedback", "text"), ("turns", "reply"))
        ),
    ),
    "candidates": (_of("turns", *_TURN),),
    "candidate_rewards": (_of("candidates", "candidate_id", "turn_id", "month"),),
    "reward_pairs": (
        _of("candidates", *_TURN, "prompt", *_PERSONA, "model"),
        *(_of("candidates", **{f"{side}_id": "candidate_id", side: "reply"}) for side in ("chosen", "rejected")),
        _of("candidate_rewards", "condition", "reward_model"),
        *(_of("candidate_rewards", **{f"{side}_reward": "reward"}) for side in ("chosen", "rejected")),
    ),
    "reasoning_pairs": (_of("reasoning_errors", "error_id", rejected="solution"),),
    "preference_pairs": (
        _of(
            "rewrite_pairs",
            *("pair_id", "user_id", "turn_id", "follow_up_id", "asked_at", *_SIDES, *_PERSONA),
            *("strategy", "is_off_policy", "meets_feedback", "model", *_REWARDS, "call_ids"),
        ),
        _of("reward_pairs", "pair_id", "user_id", "turn_id", "asked_at", *_SIDES, *_PERSONA, "model", *_REWARDS, "call_ids"),
        _of("reasoning_pairs", "pair_id", "error_id", *_SIDES, "model", "call_ids"),
        _of("explicit_pairs", "pair_id", "user_id", "turn_id", "asked_at", *_SIDES, *_PERSONA, "is_off_policy", "model", strategy="kind"),
        _REPEATED,
    ),
    "thumb_examples": (
        _of("turns", "turn_id", "conversation_id", "user_id", "asked_at"),
        _of("turns", chosen="reply"),
        _of("turns", rejected="reply"),
        _REPEATED,
    ),
    "online_candidates": _ONLINE,
    "online_pairs": _ONLINE,
    "eval_prompts": (_of("turns", "turn_id", "user_id", "turn", "asked_at"),),
    "responses": (_of("eval_prompts", "prompt_id", "benchmark"),),
    "judgements": (_of("eval_prompts", "prompt_id", "benchmark", "user_id"),),
    "judge_quality": (_of("judgements", "judge"), _of("judge_calibration", "judge")),
    "scores": (_of("responses", "recipe"),),
    "benchmark_responses": (_of("benchmark_items", "prompt_id", "benchmark"),),
    "benchmark_ratings": (_of("benchmark_items", "prompt_id", "benchmark"), _of("benchmark_responses", "recipe")),
    "benchmark_grades": (_of("benchmark_responses", "recipe", "prompt_id", "benchmark", "sample"),),
    "benchmark_scores": (_of("benchmark_responses", "recipe"),),
}
"""By table, in the order in which they are made. Entries about the same column are alternatives: each row is of one of them."""


def column_lineage(table: str, key: Callable[[str], dg.AssetKey]) -> dg.TableColumnLineage:
    """The lineage of a table's columns; ``key`` gives the key of a table's asset."""
    found: dict[str, list[dg.TableColumnDep]] = {}
    for passed in PASSED[table]:
        for here, there in passed.columns.items():
            found.setdefault(here, []).append(dg.TableColumnDep(asset_key=key(passed.table), column_name=there))
    return dg.TableColumnLineage(deps_by_column=found)
