"""The gates: what makes a snapshot unsound, and which one is the best."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlhi_dagster.training import gates
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings

DPO = DPOSettings(max_displacement=0.2, max_memorisation=0.5)
SFT = TrainingSettings(max_memorisation=0.5)


def evaluated(step: int, loss: float, chosen: float | None = None) -> dict[str, Any]:
    return {"step": step, "eval_loss": loss, **({} if chosen is None else {"eval_logps/chosen": chosen})}


def test_the_start_is_sound_and_has_no_training_loss_yet() -> None:
    found = gates.standing([evaluated(0, 0.69, -50.0)], DPO, chosen_tokens=10)
    assert (found.loss, found.displacement, found.memorisation, found.excess, found.selection) == (0.69, 0.0, None, 0.0, 0.69)


def test_displacement_is_the_fall_since_the_first_evaluation_a_token() -> None:
    history = [evaluated(0, 0.69, -50.0), {"loss": 0.6, "step": 1}, evaluated(2, 0.6, -51.0), evaluated(4, 0.5, -53.0)]
    found = gates.standing(history, DPO, chosen_tokens=10)
    assert found.displacement == pytest.approx(0.3)
    assert found.excess == pytest.approx(0.1)
    risen = gates.standing([*history, evaluated(6, 0.5, -40.0)], DPO, chosen_tokens=10)
    assert risen.displacement == pytest.approx(-1.0)
    assert risen.excess == 0.0


def test_memorisation_is_against_the_last_training_loss() -> None:
    history = [evaluated(0, 2.0), {"loss": 1.9, "step": 1}, {"loss": 1.0, "step": 2}, evaluated(2, 1.75)]
    found = gates.standing(history, SFT, chosen_tokens=1)
    assert (found.displacement, found.memorisation, found.excess) == (None, 0.75, 0.25)


def test_dpo_is_judged_by_its_own_term_whatever_else_is_in_the_loss() -> None:
    start = evaluated(0, 2.0, -50.0) | {"eval_preference_loss": 0.69}
    trained = {"loss": 1.5, "preference_loss": 0.4, "step": 1}
    found = gates.standing([start, trained, evaluated(2, 1.0, -50.0) | {"eval_preference_loss": 0.6}], DPO, chosen_tokens=10)
    assert (found.loss, found.memorisation) == (0.6, pytest.approx(0.2))
    likelier = gates.standing([start, trained, evaluated(4, 0.5, -40.0) | {"eval_preference_loss": 0.65}], DPO, chosen_tokens=10)
    assert found.selection < likelier.selection


def test_any_sound_snapshot_is_better_than_any_unsound_one_and_of_those_the_least_unsound() -> None:
    start = evaluated(0, 0.69, -50.0)

    def selection(loss: float, chosen: float) -> float:
        return gates.standing([start, evaluated(2, loss, chosen)], DPO, chosen_tokens=10).selection

    sound_but_bad, barely_unsound, unsound, very_unsound = (
        selection(9.0, -50.0),
        selection(0.5, -52.1),
        selection(0.1, -53.0),
        selection(0.01, -70.0),
    )
    assert sound_but_bad < barely_unsound < unsound < very_unsound


def test_a_reward_model_is_chosen_by_the_pairs_that_it_tells_right_and_among_equals_by_its_loss() -> None:
    def told(step: int, loss: float, right: float) -> dict[str, Any]:
        return evaluated(step, loss) | {"eval_accuracy": right}

    history = [told(0, 0.7, 0.5), told(2, 0.61, 0.74), told(4, 0.65, 0.79), told(6, 0.63, 0.79)]
    found = {point["step"]: gates.standing([history[0], point], SFT, chosen_tokens=1) for point in history}
    assert found[4].wrong == pytest.approx(0.21)
    assert sorted(found, key=lambda step: found[step].selection) == [6, 4, 2, 0]
    memorising = gates.standing([history[0], {"loss": 0.1, "step": 5}, told(6, 0.7, 1.0)], SFT, chosen_tokens=1)
    assert found[0].selection < memorising.selection
    assert gates.choice(history, 6, 6, SFT)["why"] == "most held-out pairs told right"


def test_at_a_bound_is_within_it() -> None:
    assert gates.excesses({"displacement": 0.2, "memorisation": 0.5}, DPO.model_dump()) == {}
    assert set(gates.excesses({"displacement": 0.21, "memorisation": 0.51}, DPO.model_dump())) == {"displacement", "memorisation"}


def test_what_is_not_a_number_is_past_its_bound() -> None:
    assert gates.excesses({"displacement": math.nan}, DPO.model_dump()) == {"displacement": math.inf}
    found = gates.standing([evaluated(0, 0.69, -50.0), evaluated(2, 0.5, math.nan)], DPO, chosen_tokens=10)
    assert found.selection == math.inf


def test_a_method_without_reference_has_no_displacement_to_fear() -> None:
    history = [evaluated(0, 2.0, -50.0), {"loss": 2.0, "step": 1}, evaluated(2, 2.0, -90.0)]
    assert gates.standing(history, SFT, chosen_tokens=1).excess == 0.0


def recorded(step: int, loss: float, displacement: float, memorisation: float = 0.1) -> dict[str, float]:
    return {"step": step, "eval_loss": loss, "eval_displacement": displacement, "eval_memorisation": memorisation}


def test_the_manifest_says_what_was_passed_over_and_why() -> None:
    points = [recorded(0, 0.69, 0.0), recorded(2, 0.6, 0.1), recorded(4, 0.5, 0.3), recorded(6, 0.4, 0.9, 0.8)]
    said = gates.choice(points, 2, 6, DPO)
    assert (said["step"], said["of"], said["snapshots"]) == (2, 6, 3)
    assert said["why"] == "lowest held-out loss of those within the bounds"
    assert [(each["step"], each["past"]) for each in said["passed_over"]] == [(4, ["displacement"]), (6, ["displacement", "memorisation"])]
    assert said["passed_over"][0] == {"step": 4, "loss": 0.5, "displacement": 0.3, "memorisation": 0.1, "past": ["displacement"]}


def test_when_no_snapshot_is_sound_the_manifest_says_so() -> None:
    said = gates.choice([recorded(0, 0.69, 0.0), recorded(2, 0.6, 0.4), recorded(4, 0.5, 0.9)], 2, 4, DPO)
    assert said["why"] == "no snapshot is within the bounds: the one least far past them"
    assert [each["step"] for each in said["passed_over"]] == [4]


def test_without_snapshots_to_compare_the_manifest_says_so() -> None:
    assert gates.choice([], 5, 5, SFT)["why"] == "the last step: there is no held-out pair to choose by"


def test_when_all_are_sound_the_lowest_loss_needs_no_further_words() -> None:
    said = gates.choice([recorded(0, 0.69, 0.0), recorded(2, 0.6, 0.1)], 2, 2, DPO)
    assert (said["why"], said["passed_over"]) == ("lowest held-out loss", [])
