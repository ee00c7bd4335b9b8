"""The judge of follow-ups and rewrites that the profile names."""

from __future__ import annotations

from collections.abc import Callable

from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.preferences.pair_judge import ChatPairJudge, PairJudge, RulePairJudge, TownPairJudge, VillagePairJudge

_PROGRAMS: dict[str, Callable[[], PairJudge]] = {"rule": RulePairJudge, "town": TownPairJudge, "village": VillagePairJudge}


def pair_judge(calls: Calls) -> PairJudge:
    """The rules, the town's grammar, the village's checkers, or a chat model."""
    if program := calls.program("pair_judge"):
        return _PROGRAMS[program]()
    model = calls.asked("pair_judge", temperature=0.0)
    return ChatPairJudge.with_default_prompts(model.model.identity, model)
