"""Online rounds: each on the policy of its moment, no request lost or asked twice, and pairs that add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import ONLINE_CANDIDATES, ONLINE_PAIRS, PREFERENCE_PAIRS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.online import rounds
from rlhi_dagster.online.checks import requests_are_in_one_round, rounds_are_full
from rlhi_dagster.personas.conditioning import PersonaPlacement
from rlhi_dagster.preferences import Source
from rlhi_dagster.preferences.candidates import candidate_requests
from rlhi_dagster.preferences.settings import CandidateSettings

NOON = datetime(2023, 4, 2, 12, tzinfo=UTC)
START = ModelRef("town-policy", "p1")
CANDIDATES = CandidateSettings(count=6, min_margin=0.5, with_persona_only=True)


def offered(requests: int = 12, pairs_each: int = 2) -> pl.DataFrame:
    rows = [
        dict.fromkeys(PREFERENCE_PAIRS.columns)
        | {"pair_id": f"{number:02d}-{rank}", "source": "rewards", "split": "validation" if number % 4 == 0 else "train", "is_kept": True}
        | {
            "turn_id": f"t{number:02d}:0",
            "user_id": f"u{number}",
            "asked_at": NOON,
            "persona": f"- likes {number}",
            "persona_line_ids": ["p"],
        }
        | {"prompt": [{"role": "user", "content": f"Tell me about the river number {number}, please"}], "chosen": "a", "rejected": "b"}
        for number in range(requests)
        for rank in range(pairs_each)
    ]
    return pl.DataFrame(rows, schema=PREFERENCE_PAIRS.schema, orient="row")


def plan(**given: Any) -> rounds.Plan:
    fixed: dict[str, Any] = {
        "recipe": "mine",
        "source": Source.REWARDS,
        "rounds": 2,
        "pairs": {"train": 12, "validation": 3},
        "candidates": CANDIDATES,
        "seed": 7,
    }
    return rounds.Plan(**(fixed | {"near_duplicate_jaccard": 0.9, "placement": PersonaPlacement.SYSTEM} | given))


@dataclass
class World:
    """Policies that write by formula, a reward that is the number in the reply, and a trainer that gives the next policy a new name."""

    replies: Callable[[ModelRef, ChatRequest], str | None]
    asked: list[tuple[str, list[ChatRequest]]] = field(default_factory=list)
    scored: list[RewardRequest] = field(default_factory=list)
    trained: list[rounds.Round] = field(default_factory=list)

    def ask(self, policy: ModelRef, wanted: list[ChatRequest]) -> Sequence[ChatAnswer]:
        self.asked.append((policy.identity, wanted))
        said = [self.replies(policy, request) for request in wanted]
        return [ChatAnswer(text, None if text else "timeout", "stop", 1, 1, call_id=f"c{place}") for place, text in enumerate(said)]

    def score(self, wanted: list[RewardRequest]) -> tuple[str, Sequence[RewardAnswer]]:
        self.scored += wanted
        return "rm@1", [
            RewardAnswer(float(request.messages[-1]["content"].split()[0]), None, 1, call_id=f"r{place}")
            for place, request in enumerate(wanted)
        ]

    def train(self, done: rounds.Round) -> ModelRef:
        self.trained.append(done)
        return ModelRef(f"after-{done.number}", "w")


def fresh(policy: ModelRef, request: ChatRequest) -> str:
    """Six replies apart from each other."""
    return f"{request.sample_index} of {policy.name} to {request.messages[-1]['content']}"


def requests(rows: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    return rounds.requests(rows, Source.REWARDS, "own", count, seed)


def run(world: World, rows: pl.DataFrame | None = None, **given: Any) -> list[rounds.Round]:
    chosen = plan(**given)
    persona: Any = "none" if chosen.source is Source.REWARDS_NONE else "own"
    asked = rounds.requests(offered() if rows is None else rows, chosen.source, persona, chosen.rounds, chosen.seed)
    return list(rounds.rounds(chosen, asked, START, world.ask, world.score, world.train))


def test_each_request_is_in_one_round_equally_many_of_each_split_in_any_order_of_rows() -> None:
    asked = requests(offered(), 3, 7)
    assert asked["turn_id"].to_list() == [f"t{number:02d}:0" for number in range(12)]
    assert set(asked.group_by("round", "split").len().rows()) == {
        (r, s, n) for r in (1, 2, 3) for s, n in (("train", 3), ("validation", 1))
    }
    assert asked.equals(requests(offered().reverse(), 3, 7))
    assert not asked.equals(requests(offered(), 3, 8))
    dropped = offered().with_columns(is_kept=pl.col("turn_id") != "t03:0")
    other = offered().with_columns(source=pl.lit("rewards_none"), turn_id=pl.lit("x:0"))
    assert "t03:0" not in set(requests(pl.concat([dropped, other]), 3, 7)["turn_id"])
    assert "x:0" not in set(requests(pl.concat([dropped, other]), 3, 7)["turn_id"])


def test_every_round_asks_the_policy_that_the_round_before_trained() -> None:
    world = World(fresh)
    found = run(world)
    assert [policy for policy, _ in world.asked] == [START.identity, "after-1@w"]
    assert [done.number for done in world.trained] == [1], "the last round is trained by whoever makes the checkpoint"
    assert [set(done.pairs["model"]) for done in found] == [{START.identity}, {"after-1@w"}]
    assert [set(done.candidates["model"]) for done in found] == [{START.identity}, {"after-1@w"}]
    turns = [set(done.candidates["turn_id"]) for done in found]
    assert not turns[0] & turns[1]
    assert len(turns[0] | turns[1]) == 12


def test_the_first_round_asks_what_the_candidates_were_asked_and_the_reward_model_sees_the_own_persona() -> None:
    world = World(fresh)
    run(world)
    asked = requests(offered(), 2, 7)
    assert world.asked[0][1] == candidate_requests(asked.filter(round=1), CANDIDATES.count)
    for request in world.scored:
        number = request.messages[1]["content"].removesuffix(", please").rpartition(" ")[2]
        assert f"- likes {number}" in request.messages[0]["content"]


def test_without_a_persona_nobody_sees_one_and_the_requests_are_those_ranked_without() -> None:
    world, rows = World(fresh), offered().with_columns(source=pl.lit("rewards_none"))
    found = run(world, pl.concat([rows, offered(14)]), source=Source.REWARDS_NONE)
    assert {message["role"] for _, wanted in world.asked for request in wanted for message in request.messages} == {"user"}
    assert {message["role"] for request in world.scored for message in request.messages} == {"user", "assistant"}
    made = pl.concat([done.pairs for done in found])
    assert set(made["turn_id"]) == set(rows["turn_id"]), "those of the other source are not asked"
    assert (set(made["persona"]), made["persona_line_ids"].list.len().sum()) == ({""}, 0)
    assert set(rounds.as_preference_pairs(made, Source.REWARDS_NONE)["source"]) == {"rewards_none"}
    candidates = pl.concat([done.candidates for done in found])
    assert requests_are_in_one_round(
        made.lazy(), candidates.lazy(), pl.concat([rows, offered(14)]).lazy(), {"mine": Source.REWARDS_NONE}
    ).passed


def test_rounds_give_the_pairs_that_were_asked_for_best_against_worst_first() -> None:
    found = run(World(fresh))
    pairs, candidates = pl.concat([done.pairs for done in found]), pl.concat([done.candidates for done in found])
    assert pairs.schema == ONLINE_PAIRS.schema
    assert candidates.schema == ONLINE_CANDIDATES.schema
    kept = pairs.filter("is_kept")
    assert sorted(kept.group_by("split", "round").len().rows()) == [
        ("train", 1, 6),
        ("train", 2, 6),
        ("validation", 1, 2),
        ("validation", 2, 1),
    ]
    best = kept.filter(pl.col("chosen_reward") == 5, pl.col("rejected_reward") == 0)
    assert best.filter(split="train")["turn_id"].n_unique() == 9, "every training request gives its best against its worst"
    assert set(pairs.filter(~pl.col("is_kept"))["drop_reasons"].list.first()) == {rounds.BEYOND_THE_SHARE}
    assert pairs["pair_id"].is_unique().all()
    texts = dict(candidates.select("candidate_id", "reply").iter_rows())
    for row in kept.iter_rows(named=True):
        assert (row["chosen"], row["rejected"]) == (texts[row["chosen_id"]], texts[row["rejected_id"]])
        assert len(row["call_ids"]) == 4
    assert pl.concat([done.pairs for done in run(World(fresh))]).equals(pairs)


def test_what_a_round_lacks_the_next_one_makes_up_for() -> None:
    def few_at_first(policy: ModelRef, request: ChatRequest) -> str:
        index = request.sample_index % 2 if policy == START else request.sample_index
        return f"{index} of {policy.name} to {request.messages[-1]['content']}"

    kept = pl.concat([done.pairs for done in run(World(few_at_first))]).filter("is_kept", split="train")
    counts = dict(kept.group_by("round").len().iter_rows())
    asked = requests(offered(), 2, 7).filter(round=1, split="train").height
    assert counts == {1: asked, 2: 12 - asked}
    assert counts[2] > 6


def test_repeated_pairs_and_failed_replies_are_dropped_or_told_as_such() -> None:
    twins = pl.concat([offered(), offered().with_columns(pl.format("again-{}", "turn_id").alias("turn_id"))])
    twins = twins.with_columns(prompt=pl.lit(None, dtype=PREFERENCE_PAIRS.schema["prompt"])).with_columns(
        prompt=pl.Series(
            [[{"role": "user", "content": "Tell me about the same river, please"}]] * len(twins), dtype=PREFERENCE_PAIRS.schema["prompt"]
        ),
        persona=pl.lit("- likes it"),
        split=pl.lit("train"),
    )
    world = World(lambda policy, request: None if request.sample_index == 5 else fresh(policy, request))
    (first, _) = run(world, twins, pairs={"train": 2, "validation": 0})
    assert first.candidates.filter(sample_index=5)["error"].to_list() == ["timeout"] * first.candidates["turn_id"].n_unique()
    assert first.candidates.filter(sample_index=5)["reward"].null_count() == first.candidates["turn_id"].n_unique()
    assert first.pairs["chosen_reward"].max() == 4
    assert len(first.pairs.filter("is_kept")) == 1
    assert "exact_duplicate" in set(first.pairs["drop_reasons"].explode(empty_as_null=True))


def test_a_round_without_a_pair_says_which_and_why() -> None:
    def same(policy: ModelRef, request: ChatRequest) -> str:
        return fresh(policy, request) if policy == START else f"1 to {request.messages[-1]['content']}"

    with pytest.raises(rounds.RoundError, match=r"recipe mine, round 2: no pair of candidates to train on \(too_few_replies 4\)"):
        run(World(same))
    with pytest.raises(rounds.RoundError, match=r"recipe mine, round 1: no pair of candidates to train on \(no request\)"):
        run(World(fresh), offered(0))


def test_online_pairs_are_preference_pairs_of_the_source_rewards() -> None:
    (first, _) = run(World(fresh))
    found = rounds.as_preference_pairs(first.pairs, Source.REWARDS)
    assert found.schema == PREFERENCE_PAIRS.schema
    assert set(found["source"]) == {"rewards"}
    assert found.filter("is_kept").height == first.pairs.filter("is_kept").height
    assert found.sort("pair_id")["chosen"].equals(first.pairs.sort("pair_id")["chosen"])


def test_the_check_misses_no_request_and_no_undecided_pair() -> None:
    found = run(World(fresh))
    pairs, candidates = pl.concat([done.pairs for done in found]), pl.concat([done.candidates for done in found])

    def holds(pairs: pl.DataFrame = pairs, candidates: pl.DataFrame = candidates, recipes: Sequence[str] = ("mine",)) -> list[str]:
        arms = dict.fromkeys(recipes, Source.REWARDS)
        finding = requests_are_in_one_round(pairs.lazy(), candidates.lazy(), offered().lazy(), arms)
        wrong = [name for name, count in finding.numbers.items() if name != "requests" and count]
        assert finding.passed is (not wrong)
        return wrong

    one = candidates["turn_id"][0]
    assert holds() == []
    assert holds(recipes=[]) == []
    assert "requests_without_pairs" in holds(pairs=pairs.filter(pl.col("turn_id") != one))
    assert "requests_without_candidates" in holds(candidates=candidates.filter(pl.col("turn_id") != one))
    assert "requests_without_pairs" in holds(recipes=["mine", "other"])
    again = candidates.filter(turn_id=one).with_columns(round=pl.lit(3, dtype=pl.Int32()))
    assert "requests_in_several_rounds" in holds(candidates=pl.concat([candidates, again]))
    assert "requests_out_of_step" in holds(candidates=candidates.with_columns(round=pl.lit(9, dtype=pl.Int32())))
    strange = pairs.head(1).with_columns(turn_id=pl.lit("x:0"))
    assert "unknown_requests_of_pairs" in holds(pairs=pl.concat([pairs, strange]))
    assert "undecided_pairs" in holds(pairs=pairs.with_columns(drop_reasons=pl.lit([], dtype=pl.List(pl.String()))))


def test_the_check_tells_rounds_that_fall_short() -> None:
    pairs = pl.concat([done.pairs for done in run(World(fresh))])
    assert rounds_are_full(pairs.lazy(), {"mine": 12}).passed
    short = rounds_are_full(pairs.lazy(), {"mine": 13, "other": 1})
    assert not short.passed
    assert short.numbers == {"recipes_off": ["mine", "other"], "pairs/mine": "12 of 13", "pairs/other": "0 of 1"}
    assert rounds_are_full(pairs.head(0).lazy(), {}).passed
