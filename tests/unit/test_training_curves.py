"""Names of what was recorded, the numbers of a finished run, and the pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rlhi_dagster.training import curves as training_curves
from rlhi_dagster.training.curves import COMPARED, PANELS, curves, final_numbers, measured

SHOWN = ("margin", "logp_chosen", "kl", "samples_malformed")


def manifest(chosen: int = 50, **changed: Any) -> dict[str, Any]:
    steps = [
        {
            "step": step,
            "loss": 0.9 - step / 1000,
            "preference_loss": 0.7 - step / 1000,
            "rewards/margins": step / 100,
            "logps/chosen": -5.0,
            "logps/rejected": -6.0,
            "tokens_per_second": 900.0,
        }
        for step in range(10, 101, 10)
    ]
    evaluations = [
        {"step": step, "eval_loss": 0.7, "eval_kl": step / 50, "eval_kl_error": 0.1, "eval_samples": 32.0, "eval_samples_malformed": 0.0}
        for step in (0, 50, 100)
    ]
    return {"method": "dpo", "steps": steps, "evaluations": evaluations, "chosen": {"step": chosen, "of": 100}} | changed


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_methods_share_names_and_numbers_that_are_none_are_left_out() -> None:
    assert measured({"margin": 1.0, "step": 3, "epoch": 1.0}) == {"margin": 1.0}
    assert measured({"rewards/margins": 1, "rewards/chosen": 2.0}) == {"margin": 1.0}
    assert measured({"eval_loss": 0.5, "loss": 0.4}, "eval_") == {"loss": 0.5}
    assert measured({"loss": math.nan, "grad_norm": math.inf, "kl": 0.1}) == {"kl": 0.1}


def test_the_final_numbers_are_the_last_point_and_the_chosen_snapshot() -> None:
    found = final_numbers(manifest(chosen=50))
    assert (found["training/step"], found["training/loss"]) == (100, pytest.approx(0.8))
    assert (found["held_out/step"], found["held_out/kl"], found["held_out/samples"]) == (50, 1.0, 32.0)
    assert "held_out/kl" not in final_numbers(manifest(evaluations=[]))
    assert final_numbers({}) == {}


def test_of_one_recipe_everything_is_drawn() -> None:
    figure = curves({"dpo_rewrites": manifest(chosen=50)})
    assert titles(figure) == [PANELS[key] for key in ("loss", "preference_loss", *SHOWN, "tokens_per_second")]
    by_title = dict(zip(titles(figure), figure.axes, strict=True))
    loss = by_title[PANELS["loss"]]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in loss.lines]
    assert (list(range(10, 101, 10)), [pytest.approx(0.9 - step / 1000) for step in range(10, 101, 10)]) in drawn
    assert ([0, 50, 100], [0.7, 0.7, 0.7]) in drawn
    assert any(xs == [50, 50] for xs, _ in drawn)
    assert not any(ys == [math.log(2)] * 2 for _, ys in drawn)
    term = by_title[PANELS["preference_loss"]]
    assert any(list(line.get_ydata()) == [math.log(2)] * 2 for line in term.lines)
    kl = [(list(line.get_xdata()), list(line.get_ydata())) for line in by_title[PANELS["kl"]].lines]
    assert ([50, 50], [pytest.approx(0.8), pytest.approx(1.2)]) in kl
    assert not any(ys == [math.log(2)] * 2 for _, ys in kl)


def test_several_recipes_are_compared_on_held_out_users() -> None:
    figure = curves({"a": manifest(chosen=50), "b": manifest(chosen=100, evaluations=[])})
    assert titles(figure) == [COMPARED[key] for key in ("loss", "preference_loss", *SHOWN)]
    loss = [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines]
    assert ([0, 50, 100], [0.7, 0.7, 0.7]) in loss
    assert ([50], [0.7]) in loss
    assert any(xs == list(range(10, 101, 10)) for xs, _ in loss)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_nothing_recorded_is_an_empty_picture() -> None:
    assert titles(curves({})) == titles(curves({"base": {}})) == []


def test_a_picture_is_drawn_once_and_stays_with_its_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, drawn = tmp_path / "dpo", list[list[str]]()
    folder.mkdir()
    draw = training_curves.curves
    monkeypatch.setattr(training_curves, "curves", lambda manifests: drawn.append(list(manifests)) or draw(manifests))
    first = training_curves.picture(folder, manifest())
    assert first
    assert first.startswith(b"\x89PNG")
    assert [file.name for file in folder.iterdir()] == ["curves.png"]
    assert training_curves.picture(folder, manifest()) == first
    assert drawn == [["dpo"]]


def test_a_comparison_is_drawn_again_when_one_of_its_artefacts_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[list[str]]()
    draw = training_curves.curves
    monkeypatch.setattr(training_curves, "curves", lambda manifests: drawn.append(list(manifests)) or draw(manifests))
    both = {"a": manifest(), "b": manifest(chosen=100)}
    first = training_curves.compared(tmp_path, both)
    assert first == training_curves.compared(tmp_path, both)
    assert len(drawn) == 1
    assert training_curves.compared(tmp_path, both | {"b": manifest(chosen=50)}) != first
    assert drawn == [["a", "b"]] * 2


def test_a_picture_that_is_too_large_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhi_dagster.base.pictures.MAX_BYTES", 100)
    assert training_curves.picture(tmp_path, manifest()) is None
    assert not list(tmp_path.iterdir())
