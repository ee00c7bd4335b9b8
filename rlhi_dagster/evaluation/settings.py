"""Settings of the evaluation: what checkpoints are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from rlhi_dagster.evaluation import OF_A_RUN, Benchmark

_OF_THE_PAPER: dict[str, tuple[Benchmark, ...]] = {
    "AlpacaEval 2.0": (Benchmark.ALPACA_EVAL,),
    "Arena-Hard": (Benchmark.ARENA_HARD_V0_1, Benchmark.ARENA_HARD_V2_0),
    "OlympiadBench": (Benchmark.OLYMPIAD_BENCH,),
    "Minerva": (Benchmark.MINERVA,),
    "GPQA": (Benchmark.GPQA,),
    "MMLU-Pro": (Benchmark.MMLU_PRO,),
}
"""The paper's benchmarks beside UserEval, and what runs them here."""


class EvaluationSettings(BaseModel, frozen=True, extra="forbid"):
    """What checkpoints are tried on."""

    users: Literal["test", "tuning"] = Field(
        default="test", description="Whose requests: `tuning` while settings are tried, `test` once, with those that were chosen."
    )
    requests_per_user: int = Field(ge=1, description="Latest opening requests of each of these users.")
    follow_ups_per_user: int = Field(
        default=1, ge=0, description="Follow-ups of each, one of each of the latest conversations that have any, after the logged history."
    )
    personas: tuple[Literal["own", "shuffled", "empty"], ...] = Field(
        default=("own", "shuffled", "empty"),
        description="Personas that recipes answer with: `own` always, `shuffled` (another user's) and `empty` to tell what is personal.",
    )
    other_personas_per_user: int = Field(default=1, ge=0, description="Latest requests of each that are asked under other personas, too.")
    cold_start_per_user: int = Field(
        default=1, ge=0, description="Latest requests of each user with a long history that are asked as if less of it were known."
    )
    calibration: Mapping[str, str] = Field(
        default_factory=dict,
        description="Pairs that people ranked, in hh-rlhf's layout, on which judges are tried: name of a set to path, glob or `hf://`.",
    )
    calibration_pairs: int = Field(default=200, ge=1, description="Most pairs of each set that judges are tried on, drawn by `seed`.")
    arithmetic_problems: int = Field(ge=0, description="Held-out sums.")
    safety_items: int = Field(
        default=40,
        ge=0,
        description="Most items of each kind of the safety benchmark, which comes with the project: harmful requests, harmless "
        "look-alikes, users who insist on something false, and the same of the held-out sums; 40 are all that there are, 0 for none.",
    )
    benchmarks: Mapping[Benchmark, str] = Field(
        default_factory=dict,
        description="Folder with the files of each public benchmark that is to be run, by its name; docs/concepts/benchmarks.md says "
        "which files. Nothing is downloaded.",
    )
    samples: int = Field(default=1, ge=1, description="Replies to each problem of a public benchmark; pass@1 is their mean.")
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="Longest reply to a public benchmark in tokens; null for what `sampling` says."
    )

    @field_validator("benchmarks")
    @classmethod
    def _are_public(cls, benchmarks: Mapping[Benchmark, str]) -> Mapping[Benchmark, str]:
        if own := sorted(OF_A_RUN & set(benchmarks)):
            raise ValueError(f"{', '.join(own)}: every run makes these items itself, so no files are named for them")
        return benchmarks

    @field_validator("personas")
    @classmethod
    def _own_is_among_them(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if "own" not in given or len(set(given)) < len(given):
            raise ValueError(f"own is always among them, and each is named once: not {', '.join(given)}")
        return given

    def deviations(self, judges: Sequence[str | None]) -> list[str]:
        """Where this departs from the paper; ``judges`` are models, ``None`` for the town's."""
        said = [
            "The judge is the simulated users' own preferences; the paper's judges are closed models."
            if judge is None
            else f"The judge is `{judge}`, asked in both orders; the paper's judges are closed models."
            for judge in judges
        ]
        sums = f"; {self.arithmetic_problems} sums stand in for them" if self.arithmetic_problems else ""
        absent = [name for name, members in _OF_THE_PAPER.items() if not any(member in self.benchmarks for member in members)]
        listed = f"{', '.join(absent[:-1])} and {absent[-1]}" if len(absent) > 1 else "".join(absent)
        return [*said, *([f"The paper's other benchmarks are not run ({listed}){sums}."] if absent else [])]
