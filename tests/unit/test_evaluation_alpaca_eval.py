"""AlpacaEval 2.0: the leaderboard's numbers from its files, and annotations of every kind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from rlhi_dagster.evaluation.alpaca_eval import BASELINE, INSTRUCTIONS, JUDGE, gamed, length_control
from rlhi_dagster.evaluation.alpaca_eval.annotations import ROW_SCHEMA, of_rows, read
from rlhi_dagster.evaluation.alpaca_eval.length_control import Design, Weights, design, fit, length_controlled, predictions, standard_error
from rlhi_dagster.evaluation.alpaca_eval.published import Published
from rlhi_dagster.evaluation.alpaca_eval.row import row
from rlhi_dagster.evaluation.alpaca_eval.win_rate import win_rate

FILES = Path(__file__).parents[2] / "../shared/data/alpaca_eval"
needs_files = pytest.mark.skipif(not FILES.is_dir(), reason="the published files of AlpacaEval are not at ../shared/data/alpaca_eval")
WITHOUT_ROW = {"text_davinci_003"}
"""Has annotations and no row on the leaderboard."""
Row = dict[str, Any]


def difficulty(place: int) -> float:
    return math.sin(place) * 1.5


def made(count: int = INSTRUCTIONS) -> list[Row]:
    """Annotations as alpaca_eval writes them, by a judge that likes long outputs; a function of the place alone."""
    rows = []
    for place in range(count):
        lengths = 500 + place * 37 % 900, 400 + place * 53 % 1500
        chance = expit(-0.8 + 1.2 * math.tanh((lengths[1] - lengths[0]) / 600) + 0.5 * difficulty(place) + 2 * math.cos(7 * place))
        rows.append(
            {"instruction": f"i{place}", "output_1": "x" * lengths[0], "output_2": "y" * lengths[1], "generator_1": BASELINE}
            | {"generator_2": "m", "annotator": JUDGE, "preference": 1 + float(chance)}
        )
    return rows


def with_gaps() -> list[Row]:
    rows = made()
    rows[50] |= {"preference": None}
    rows[60] |= {"preference": 0.0}
    del rows[100]
    return rows


def gamed_table() -> pl.DataFrame:
    """A table laid out as df_gamed.csv."""
    rows = []
    for version, share in enumerate((0.6, 1.3)):
        for place in range(INSTRUCTIONS):
            difference = (1 - share) * (1.5 + place * 11 % 17 / 10) + 0.4 * math.sin(3 * place)
            chance = expit(-1.1 * math.tanh(difference) + 0.3 * difficulty(place) + math.cos(5 * place + version))
            rows.append((place, float(chance), difference, difficulty(place), False, f"v{version}"))
    names = ["index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline", "model"]
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a table of the baseline's versions, as one has it who downloads it."""
    gamed_table().write_csv(tmp_path / "df_gamed.csv")
    return tmp_path


@pytest.mark.parametrize(
    ("rows", "raw", "error", "controlled", "controlled_error", "n"),
    [
        # What alpaca_eval 0.6.6 (scikit-learn 1.5.2) says of the same rows and the same table.
        (made, 41.12334312306014, 1.032071891789769, 36.59650611273144, 0.2899240366269904, 805),
        (with_gaps, 41.17739916579576, 1.0340730375359588, 36.64238048395178, 0.18551906183019798, 803),
    ],
)
def test_the_numbers_are_those_of_alpaca_eval_itself(
    rows: Callable[[], list[Row]], raw: float, error: float, controlled: float, controlled_error: float, n: int, folder: Path
) -> None:
    (annotations,) = of_rows(rows(), "annotations.json")
    found = row(annotations, Published(folder))
    assert found.controlled is not None
    assert (found.raw.n, found.missing) == (n, INSTRUCTIONS - n)
    assert [found.raw.win_rate, found.raw.standard_error] == pytest.approx([raw, error], abs=1e-9)
    assert [found.controlled.win_rate, found.controlled.standard_error] == pytest.approx([controlled, controlled_error], abs=1e-6)


@needs_files
def test_raw_win_rates_are_the_leaderboards() -> None:
    published, found = Published(FILES), read(FILES / "annotations.parquet")
    assert len(found) == 26
    assert {each.model for each in found} - set(published.leaderboard) == WITHOUT_ROW
    for each in found:
        if each.model not in WITHOUT_ROW:
            listed, raw = published.leaderboard[each.model], win_rate(each.rows["preference"])
            mine = [raw.win_rate, raw.standard_error, raw.discrete_win_rate, raw.wins, raw.losses, raw.draws, raw.n]
            names = ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total")
            assert mine == pytest.approx([listed[name] for name in names], abs=1e-6), each.model


@needs_files
def test_published_weights_give_the_published_length_controlled_win_rates_of_all_models() -> None:
    published = Published(FILES)
    for each in read(FILES / "annotations.parquet"):
        if each.model not in WITHOUT_ROW:
            difficulties = published.difficulties_of(len(each.rows))
            assert difficulties is not None
            predicted = predictions(published.weights[each.model], difficulties)
            listed = published.leaderboard[each.model]
            assert 100 * predicted.mean() == pytest.approx(listed["length_controlled_winrate"], abs=1e-6), each.model
            if listed["lc_standard_error"] is not None:
                assert standard_error(predicted) == pytest.approx(listed["lc_standard_error"], abs=1e-6)


@needs_files
@pytest.mark.parametrize(
    ("model", "most"), [("claude-2.1", 0.01), ("phi-2", 0.01), ("FuseChat-Gemma-2-9B-Instruct", 0.01), ("gpt4_gamed", 0.15)]
)
def test_a_refit_held_by_what_other_models_give_away_comes_near(model: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(length_control, "RESAMPLES", 2)
    (annotations,) = (each for each in read(FILES / "annotations.parquet") if each.model == model)
    found = row(annotations, Published(FILES, left_out=model))
    assert found.controlled is not None
    assert found.published is not None
    assert not found.differs
    assert not found.controlled_differs
    assert abs(found.controlled.win_rate - found.published[1]) < most


def test_what_published_models_give_away_stands_in_for_the_table() -> None:
    table = gamed_table()
    features = np.column_stack([np.tanh(table["std_delta_len"]), table["instruction_difficulty"], np.zeros(len(table))])
    missing = Design(features, table["preference"].to_numpy(), np.full(len(table), gamed.COUNTS), np.zeros(len(table), dtype=np.int64))
    difficulties = np.array([difficulty(place) for place in range(INSTRUCTIONS)])
    rng = np.random.default_rng(3)

    def own(skill: float, longer: float, taste: float) -> Design:
        length = np.tanh(rng.normal(-longer, 1, INSTRUCTIONS))
        wins = expit(skill - taste * length + 0.6 * difficulties + rng.normal(0, 2, INSTRUCTIONS))
        return Design(
            np.column_stack([length, difficulties, np.ones(INSTRUCTIONS)]), wins, np.ones(INSTRUCTIONS), missing.folds[:INSTRUCTIONS]
        )

    models = [own(*each) for each in rng.uniform([-3.5, -2, 0], [1, 1, 2], (13, 3))]
    strength = float(length_control.STRENGTHS[6])
    known = [(rows, fit(missing + rows, strength)) for rows in models[:12]]
    stand_in = gamed.stand_in(known, difficulties)
    assert stand_in is not None
    truth, near, far = (
        100 * predictions(fit(rows, strength), difficulties).mean()
        for rows in (missing + models[12], stand_in.design + models[12], models[12])
    )
    assert abs(near - truth) < 0.1 < abs(far - truth)
    assert gamed.stand_in(known[:4], difficulties) is None


def taste(longer: float, skill: float, seed: int = 0) -> pl.DataFrame:
    """Annotations by a judge whose choice is a matter of length and of how much better the model is."""
    rng = np.random.default_rng(seed)
    theirs = rng.integers(500, 2000, 805)
    mine = (theirs * longer * rng.lognormal(0, 0.5, 805)).astype(int)
    difference = (theirs - mine) / (theirs - mine).std(ddof=1)
    won = rng.random(805) < expit(skill - 3 * np.tanh(difference))
    return pl.DataFrame(
        {"place": range(805), "instruction": None, "preference": 1.0 + won, "baseline_length": theirs, "model_length": mine},
        schema=ROW_SCHEMA,
    )


@pytest.mark.parametrize(("longer", "skill"), [(1.7, 0.0), (0.6, 0.0), (1.7, -1.0)])
def test_a_judge_that_loves_length_is_corrected(longer: float, skill: float) -> None:
    rows = taste(longer, skill)
    found = length_controlled(rows, np.zeros(805), None)
    truth = 100 * expit(skill)
    assert abs(win_rate(rows["preference"]).win_rate - truth) > 12
    assert found.ci_low < truth < found.ci_high
    assert abs(found.win_rate - truth) < 6


def test_the_bootstrap_interval_holds_and_the_published_error_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(length_control, "RESAMPLES", 60)
    found = [length_controlled(taste(1.5, 0.0, seed), np.zeros(805), None) for seed in range(20)]
    spread = np.std([each.win_rate for each in found], ddof=1)
    assert spread / 1.6 < np.mean([each.bootstrap_standard_error for each in found]) < 1.6 * spread
    assert all(each.standard_error < each.bootstrap_standard_error / 10 for each in found)


def test_the_baseline_against_itself_is_a_draw(folder: Path) -> None:
    (annotations,) = of_rows([each | {"generator_2": BASELINE, "preference": 1.5} for each in made(9)], "a.json")
    found = row(annotations, Published(folder))
    assert (found.raw.win_rate, found.raw.draws, found.controlled) == (50.0, 9, None)


@given(st.lists(st.one_of(st.none(), st.floats(1, 2)), min_size=2, max_size=40).filter(lambda each: sum(x is not None for x in each) > 1))
@settings(max_examples=50, deadline=None)
def test_swapping_the_sides_turns_a_win_rate_round(preferences: list[float | None]) -> None:
    one = win_rate(pl.Series(preferences, dtype=pl.Float64))
    other = win_rate(pl.Series([None if each is None else 3 - each for each in preferences], dtype=pl.Float64))
    assert one.win_rate + other.win_rate == pytest.approx(100)
    assert one.n == sum(each is not None for each in preferences)
    assert (one.wins + one.losses + one.draws, one.standard_error) == (one.n, pytest.approx(other.standard_error))


def test_every_format_says_the_same(tmp_path: Path) -> None:
    rows = made(30)
    rows[3] |= {"preference": None}
    frame = pl.DataFrame(rows)
    (tmp_path / "a.json").write_text(json.dumps([each | {"preference": each["preference"] or math.nan} for each in rows]))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    lengths = frame.with_columns(pl.col("output_1", "output_2").str.len_chars().name.prefix("len_")).drop("output_1", "output_2")
    lengths.write_parquet(tmp_path / "lengths.parquet")
    first, *others = (read(tmp_path / name)[0] for name in ("a.json", "a.jsonl", "a.csv", "a.parquet", "lengths.parquet"))
    assert first.rows["preference"].null_count() == 1
    assert first.notes == ("rows without a preference: 1",)
    assert (first.model, first.baseline, first.judge) == ("m", BASELINE, JUDGE)
    for other in others:
        assert other.rows.equals(first.rows)
        assert replace(other, rows=first.rows) == first


@pytest.mark.parametrize(
    ("change", "preference", "note"),
    [
        ({"preference": "1.25"}, 1.25, None),
        ({"preference": math.nan}, None, "rows without a preference: 1"),
        ({"preference": " NaN "}, None, "rows without a preference: 1"),
        ({"preference": 2.5}, None, "preferences outside of 1 to 2, missing: 1"),
        ({"preference": 0}, 1.5, "rows with preference 0, draws as in alpaca_eval: 1"),
        ({"output_2": None}, None, "rows without an output, missing: 1"),
    ],
)
def test_odd_preferences(change: Row, preference: float | None, note: str | None) -> None:
    rows = made(30)
    rows[7] |= change
    (found,) = of_rows(rows, "a.json")
    assert found.rows["preference"][7] == preference
    assert found.notes == ((note,) if note else ())


def test_a_0_in_a_table_of_lengths_is_missing() -> None:
    rows: list[Row] = [{"index": place, "model": "m", "preference": 0.0, "len_output_1": 5, "len_output_2": 6} for place in range(3)]
    (found,) = of_rows(rows, "a.parquet")
    assert found.rows["preference"].null_count() == 3


def test_repeated_rows_count_once_and_those_that_disagree_are_refused() -> None:
    rows = made(5)
    (found,) = of_rows([*rows, rows[2]], "a.json")
    assert (len(found.rows), found.notes) == (5, ("rows that repeat an earlier one, left out: 1",))
    with pytest.raises(ValueError, match=r"a\.json: row 6 \(m\) is about the same instruction"):
        of_rows([*rows, rows[2] | {"preference": 1.01}], "a.json")


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([made(1)[0] | {"preference": "output_2"}], r"row 1 \(m\): preference 'output_2' is no number from 1"),
        ([made(1)[0] | {"preference": True}], r"row 1 \(m\): preference True is no number from 1"),
        ([each | {"preference": each["preference"] - 1} for each in made(30)], "30 of 30 preferences of m lie outside of 1"),
        ([{"instruction": "i", "output": "x"}], "rows have no `preference` but instruction, output"),
        ([{"instruction": "i", "preference": 1.0, "output_1": "x"}], "neither `output_2` nor `len_output_2`"),
        ([made(1)[0], made(2)[1] | {"annotator": "other"}], "2 values of annotator"),
        ([made(1)[0] | {"index": 900}], "index 900 is none of the 805 places"),
    ],
)
def test_what_is_no_annotation_is_a_sentence(rows: list[Row], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        of_rows(rows, "a.json")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", "[", "not JSON"),
        ("a.json", "{}", "a list of objects"),
        ("a.json", "[]", "no annotations in it"),
        ("a.txt", "", "are read from"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_sentence(name: str, content: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read(tmp_path / name)


def test_too_few_preferences_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 rows have a preference"):
        win_rate(pl.Series([1.0, None]))
    with pytest.raises(ValueError, match="length control needs 5"):
        length_controlled(of_rows(made(3), "a.json")[0].rows, np.zeros(3), None)


def test_equal_lengths_leave_nothing_to_control() -> None:
    rows = pl.DataFrame([each | {"output_1": "x" * 9, "output_2": "x" * 9, "index": place} for place, each in enumerate(made(60))])
    (found,) = of_rows(rows.to_dicts(), "a.json")
    assert (design(found.rows, np.zeros(60)).features[:, 0] == 0).all()
    assert length_controlled(found.rows, np.zeros(60), None).win_rate == pytest.approx(win_rate(found.rows["preference"]).win_rate, abs=0.5)


Rlhi = Callable[..., CompletedProcess[str]]


def test_the_command_says_who_judged_and_what_compares(rlhi: Rlhi, folder: Path) -> None:
    file = folder / "annotations.json"
    file.write_text(json.dumps(with_gaps()))
    said = rlhi(folder / "data", "alpaca-lc", str(file))
    assert said.returncode == 0, said.stderr
    lines = [line.split(None, 1) for line in said.stdout.splitlines()]
    assert ["n", "803, 2 missing"] in lines
    assert ["comparable", "yes, with the published leaderboard"] in lines
    assert ["regression", "held to the baseline by the published table"] in lines

    file.write_text(json.dumps([each | {"annotator": "mine"} for each in made()[:700]]))
    text = rlhi(folder / "data", "alpaca-lc", str(file)).stdout
    assert "comparable    no: judged by mine; the published judge is weighted_alpaca_eval_gpt4_turbo" in text
    assert "comparable    no: 105 of 805 instructions have no preference" in text


def test_without_published_files_the_command_says_what_is_missing(rlhi: Rlhi, tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(made(40)))
    text = rlhi(tmp_path / "data", "alpaca-lc", str(file)).stdout
    assert "LC win rate   not computed: the instructions' difficulties are not at hand (instruction_difficulty.csv)" in text
    assert "win rate      " in text
    missing = rlhi(tmp_path / "data", "alpaca-lc", str(file), "--model", "other")
    assert (missing.returncode, "there are some of m" in missing.stderr) == (1, True)


def test_weights_predict_by_the_published_formula() -> None:
    assert predictions(Weights(9.0, 2.0, -1.0), np.array([0.0, 1.0])).tolist() == pytest.approx([expit(-1.0), expit(1.0)])
