"""Who plays which role: how a player is spelled, whose model, engine and sampling it has, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rlhi_dagster import profiles
from rlhi_dagster.engines.model_settings import BUILTIN, ROLES, Models, SamplingSettings
from rlhi_dagster.engines.settings import engine_settings
from rlhi_dagster.profiles import Profile

COMMIT = "1" * 40
ENGINE = engine_settings({"kind": "transformers", "device": "cpu", "dtype": "float32", "batch_size": 1, "chunk_size": 1})
OWN_ENGINE = {"kind": "vllm", "dtype": "bfloat16", "chunk_size": 8}
SERVER = {"kind": "openai", "base_url": "http://x/v1", "chunk_size": 8}
SAMPLING = SamplingSettings(temperature=0.6, top_p=0.9, max_new_tokens=56)
NEEDED = {"policy": "town", "reward": "trained", "judge": "town"}


def models(**roles: Any) -> Models:
    return Models.model_validate(NEEDED | roles)


def players(role: Any, **roles: Any) -> Any:
    return models(**roles).players(role, ENGINE, SAMPLING, 7)


def told(**roles: Any) -> str:
    """Why the roles are refused."""
    with pytest.raises(ValidationError) as caught:
        models(**roles)
    return "; ".join(error["msg"].removeprefix("Value error, ") for error in caught.value.errors())


def hub(name: str, **more: Any) -> dict[str, Any]:
    return {"hub": f"{name}@{COMMIT}", **more}


def test_roles_without_a_player_have_the_projects_programs_and_the_rewriter_is_the_policy() -> None:
    found = {role: players(role)[0] for role in ROLES}
    assert {role: (player.owner, player.builtin) for role, player in found.items()} == {
        **{role: (role, programs[0]) for role, programs in BUILTIN.items() if programs},
        "rewriter": ("policy", "town"),
    }
    assert {player.engine for player in found.values()} == {ENGINE}
    assert {(p.sampling.temperature, p.sampling.top_p, p.sampling.max_new_tokens, p.sampling.seed) for p in found.values()} == {
        (0.6, 0.9, 56, 7)
    }


def test_a_word_is_a_program_or_a_role_and_a_mapping_is_a_model() -> None:
    assert models(labeller="classifier").labeller.builtin == "classifier"
    assert models(labeller="judge", judge=hub("a/b")).labeller.same_as == "judge"
    assert models(labeller=hub("a/b")).labeller.hub == f"a/b@{COMMIT}"
    assert models(labeller={"builtin": "classifier"}) == models(labeller="classifier") == models()


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        (
            {"labeller": "clasifier"},
            "clasifier is neither a role nor a program; labeller can be classifier, another role's, or a model; "
            "a model is spelled `{hub: OWNER/NAME@COMMIT}`",
        ),
        ({"rewriter": "rewriter"}, "rewriter is neither a role nor a program; rewriter can be another role's, or a model"),
        ({"labeller": {"builtin": "town"}}, "labeller: no program town; labeller can be classifier, another role's, or a model"),
        (
            {"pair_judge": {"builtin": "trained"}},
            "pair_judge: no program trained; pair_judge can be rule or town or village, another role's, or a model",
        ),
        ({"judge": ["town", {"builtin": "rule"}]}, "judge: no program rule; judge can be town or village, another role's, or a model"),
        ({"labeller": "pair_judge"}, "labeller cannot be the same as pair_judge, which is rule; labeller can be classifier"),
        ({"simulated_user": "judge"}, "simulated_user cannot be the same as judge, which is town; simulated_user can be template"),
        (
            {"labeller": "persona_writer", "persona_writer": "labeller"},
            "labeller: labeller is the same as persona_writer is the same as labeller",
        ),
        (
            {"labeller": "judge", "judge": {"same_as": "pair_judge"}, "pair_judge": "labeller"},
            "labeller: labeller is the same as judge is the same as pair_judge is the same as labeller",
        ),
        ({"pair_judge": "reward"}, "pair_judge cannot be the same as reward: the reward model gives a score"),
        ({"labeller": "judge", "judge": "reward"}, "labeller cannot be the same as judge: the reward model gives a score"),
        ({"judge": "rewriter", "rewriter": "reward", "reward": hub("a/b")}, "rewriter cannot be the same as reward: the reward model"),
        ({"reward": "policy"}, "reward cannot be the same as policy: the reward model gives a score"),
        ({"labeller": {}}, "give one of hub, folder, gguf, served, builtin, same_as, not none"),
        ({"labeller": {"builtin": "classifier", "hub": "a/b"}}, "not hub and builtin"),
        ({"labeller": {"same_as": "judge", "folder": "a"}}, "not folder and same_as"),
        ({"judge": []}, "at least 1 item"),
        ({"labeller": hub("a/b", engin=OWN_ENGINE)}, "Extra inputs are not permitted"),
        ({"labeller": hub("a/b", sampling={"temperature": -1})}, "greater than or equal to 0"),
    ],
)
def test_what_nobody_can_play_is_refused_with_what_can_be_written(roles: dict[str, Any], sentence: str) -> None:
    assert sentence in told(**roles)


def test_the_same_player_is_found_over_several_steps() -> None:
    roles = {"judge": hub("a/b", engine=OWN_ENGINE), "labeller": "judge", "persona_writer": "labeller"}
    (judge,), (writer,) = players("judge", **roles), players("persona_writer", **roles)
    assert writer == judge
    assert (writer.owner, writer.name, writer.engine) == ("judge", "a/b", engine_settings(OWN_ENGINE))
    assert writer.identity == judge.identity


def test_a_role_has_an_engine_and_a_sampling_of_its_own_and_what_it_does_not_say_is_the_others() -> None:
    roles = {
        "judge": hub("a/b", engine=OWN_ENGINE, sampling={"temperature": 0.2, "max_new_tokens": 9}),
        "labeller": {"same_as": "judge", "sampling": {"max_new_tokens": 5}},
        "pair_judge": {"same_as": "labeller", "engine": ENGINE.model_dump()},
    }
    judge, labeller, pair_judge = (players(role, **roles)[0] for role in ("judge", "labeller", "pair_judge"))
    drawn = [(p.sampling.temperature, p.sampling.top_p, p.sampling.max_new_tokens) for p in (judge, labeller, pair_judge)]
    assert drawn == [(0.2, 0.9, 9), (0.2, 0.9, 5), (0.2, 0.9, 5)]
    assert [p.engine.kind for p in (judge, labeller, pair_judge)] == ["vllm", "vllm", "transformers"]
    assert len({p.identity for p in (judge, labeller, pair_judge)}) == 3, "each answers otherwise"


def test_what_does_not_bear_on_answers_is_no_part_of_the_identity() -> None:
    (plain,) = players("judge", judge=hub("a/b"))
    (slower,) = players("judge", judge=hub("a/b", engine=ENGINE.model_dump() | {"batch_size": 99}))
    (other,) = players("judge", judge=hub("a/c"))
    assert plain.identity == slower.identity != other.identity


def test_several_judges_are_all_asked_and_a_role_that_is_the_same_has_the_first() -> None:
    roles = {"judge": [hub("a/b"), "town", hub("c/d", sampling={"temperature": 1.0})], "labeller": "judge"}
    assert [player.name for player in players("judge", **roles)] == ["a/b", "town", "c/d"]
    assert [player.name for player in players("labeller", **roles)] == ["a/b"]
    assert models(judge="town").judge == models(judge=["town"]).judge


@pytest.mark.parametrize(
    ("roles", "temperature"),
    [
        ({"labeller": hub("a/b")}, 0.0),
        ({"labeller": hub("a/b", sampling={"top_p": 0.5})}, 0.0),
        ({"labeller": hub("a/b", sampling={"temperature": 0.3})}, 0.3),
        ({"labeller": hub("a/b", sampling={"temperature": 0.6})}, 0.6),
        ({"labeller": "judge", "judge": hub("a/b", sampling={"temperature": 0.3})}, 0.3),
        ({"labeller": {"same_as": "judge", "sampling": {"temperature": 0.4}}, "judge": hub("a/b", sampling={"temperature": 0.3})}, 0.4),
        ({"labeller": "judge", "judge": hub("a/b")}, 0.0),
    ],
)
def test_the_usual_temperature_of_a_role_holds_unless_the_profile_has_another_for_it(roles: dict[str, Any], temperature: float) -> None:
    (player,) = players("labeller", **roles)
    assert player.drawing(0.0).temperature == temperature
    assert player.drawing(None) == player.sampling
    assert (player.drawing(0.0).top_p, player.drawing(0.0).max_new_tokens) == (player.sampling.top_p, 56)


def sample(**roles: Any) -> Profile:
    settings = profiles.load("town").model_dump(mode="json")
    return Profile.model_validate(settings | {"models": NEEDED | {"pair_judge": "town"} | roles})


@pytest.mark.parametrize("role", ["policy", "labeller", "persona_writer", "rewriter", "pair_judge", "simulated_user", "judge"])
def test_a_served_model_goes_with_a_server_and_no_other_does(role: str) -> None:
    assert sample(**{role: {"served": "gpt@1", "engine": SERVER}})
    for wrong in ({"served": "gpt@1"}, {"served": "gpt@1", "engine": OWN_ENGINE}, hub("a/b", engine=SERVER)):
        with pytest.raises(
            ValidationError, match=rf"models\.{role}: an engine of kind openai takes a model that is `served: NAME@VERSION`"
        ):
            sample(**{role: wrong})


def test_a_server_gives_no_rewards() -> None:
    with pytest.raises(ValidationError, match=r"models\.reward: a server of chat completions gives no rewards"):
        sample(reward={"served": "gpt@1", "engine": SERVER})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy": None}, r"models\.policy: town is trained here and needs the section policy"),
        ({"reward": {}}, r"models\.reward: trained needs reward\.training, or name a reward model"),
        ({"truth": None}, r"models\.pair_judge: town reads replies of the simulation only"),
    ],
)
def test_a_program_needs_its_section(changes: dict[str, Any], sentence: str) -> None:
    settings = profiles.load("town").model_dump(mode="json")
    with pytest.raises(ValidationError, match=sentence):
        Profile.model_validate(settings | changes)


def test_the_towns_policy_is_a_model_for_every_role_that_has_it() -> None:
    """It is trained here, but nobody else's program: a role that is the same as the policy must not fall back to one of its own."""
    for role in ("labeller", "persona_writer", "rewriter", "pair_judge", "simulated_user", "judge"):
        (player,) = players(role, **{role: "policy"})
        assert (player.owner, player.builtin, player.program) == ("policy", "town", None)
    assert [each.program for each in players("judge", judge=["town", "policy"])] == ["town", None]
    (own,) = players("pair_judge", pair_judge="town")
    assert (own.owner, own.program, own.is_trained_here) == ("pair_judge", "town", False)
