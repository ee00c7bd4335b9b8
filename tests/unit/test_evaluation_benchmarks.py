"""Public benchmarks: items from the published files, judging in both orders, and scores that judges' tastes do not sway."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.special import expit

from rlhi_dagster.base.tables import BENCHMARK_RATINGS, EVAL_PROMPTS, RESPONSES, SCORES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.questions import Chat
from rlhi_dagster.evaluation import Benchmark, Metric
from rlhi_dagster.evaluation.alpaca_eval import BASELINE
from rlhi_dagster.evaluation.benchmarks import PUBLIC, alpaca_eval, arena_hard, mt_bench, style_control
from rlhi_dagster.evaluation.benchmarks.items import Loaded, item, items, responses, with_earlier_replies
from rlhi_dagster.evaluation.benchmarks.rating import Scale, position_bias, rate
from rlhi_dagster.evaluation.settings import EvaluationSettings

SHARED = Path(__file__).parents[2] / "../shared/data"
needs_files = pytest.mark.skipif(not (SHARED / "arena_hard").is_dir(), reason="the published files are not at ../shared/data")
FOLDERS = {
    Benchmark.ALPACA_EVAL: ("alpaca_eval", 805, {BASELINE: 805}),
    Benchmark.ARENA_HARD_V0_1: ("arena_hard", 500, {}),
    Benchmark.ARENA_HARD_V2_0: ("arena_hard", 750, {}),
    Benchmark.MT_BENCH: ("mt_bench", 160, {}),
}
Preference = Callable[[str, str], float]
"""How much better the first of two replies is than the second."""


def shown(request: ChatRequest) -> tuple[str, str]:
    text = request.messages[0]["content"]
    first, second = (re.search(rf"<{tag}>\n(.*?)\n</{tag}>", text, re.DOTALL) for tag in ("reply_a", "reply_b"))
    assert first is not None
    assert second is not None
    return first[1], second[1]


def judging(better: Preference, first: float = 0.0, seed: int = 0) -> Chat:
    """A judge of five steps, with noise, which leans towards the first position by ``first``."""
    rng = np.random.default_rng(seed)

    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        answers = []
        for request in requests:
            felt = better(*shown(request)) + first + rng.logistic()
            step = 0 if felt > 2 else 1 if felt > 0.3 else 2 if felt > -0.3 else 3 if felt > -2 else 4
            answers.append(ChatAnswer("ABCDE"[step], None, "stop", 1, 1))
        return answers

    return chat


def pair(mine: list[str | None], theirs: list[str | None], benchmark: Benchmark, name: str = "{:03}") -> tuple[Loaded, pl.DataFrame]:
    """Items with an opponent's replies, and a recipe's."""
    names = [name.format(number) for number in range(len(mine))]
    prompts = items(item(benchmark, each, [f"Question {each}?"]) for each in names)

    def of(recipe: str, replies: list[str | None]) -> pl.DataFrame:
        return responses(benchmark, recipe, {f"{benchmark}:{each}": reply for each, reply in zip(names, replies, strict=True)})

    return Loaded(prompts, of("opponent", theirs)), of("mine", mine)


def scored(found: pl.DataFrame, metric: Metric, benchmark: str) -> tuple[float, float, float]:
    row = found.filter(metric=metric.value, benchmark=benchmark).row(0, named=True)
    return row["value"], row["ci_low"], row["ci_high"]


@needs_files
@pytest.mark.parametrize("benchmark", FOLDERS)
def test_items_are_those_of_the_published_files(benchmark: Benchmark) -> None:
    folder, count, opponents = FOLDERS[benchmark]
    found = PUBLIC[benchmark].load(SHARED / folder)
    assert found.items.schema == EVAL_PROMPTS.schema
    assert found.opponents.schema == RESPONSES.schema
    assert found.items["benchmark"].unique().to_list() == [benchmark.value]
    assert (len(found.items), found.items["prompt_id"].n_unique()) == (count, count)
    assert dict(found.opponents.group_by("recipe").len().iter_rows()) == opponents
    assert all(message["content"].strip() for prompt in found.items["prompt"] for message in prompt)


@needs_files
def test_a_second_turn_is_asked_after_the_models_own_first_reply() -> None:
    prompts = PUBLIC[Benchmark.MT_BENCH].load(SHARED / "mt_bench").items
    second = prompts.filter(pl.col("prompt_id").str.ends_with("#2"))
    first = {name.replace("#2", "#1"): f"reply to {name}" for name in second["prompt_id"]}
    missing = second["prompt_id"][3].replace("#2", "#1")
    filled = with_earlier_replies(second, first | {missing: None})
    assert (len(second), len(filled)) == (80, 79)
    for row in filled.iter_rows(named=True):
        assert [message["role"] for message in row["prompt"]] == ["user", "assistant", "user"]
        assert row["prompt"][1]["content"] == f"reply to {row['prompt_id']}"
    turns = prompts.filter(pl.col("prompt_id").str.ends_with("#1"))
    assert with_earlier_replies(turns, {})["prompt"].to_list() == turns["prompt"].to_list()


def test_arena_hard_finds_the_baselines_answers_of_each_category(tmp_path: Path) -> None:
    questions = [
        {"uid": "a", "category": "hard_prompt", "prompt": "1?"},
        {"uid": "b", "category": "creative_writing", "prompt": "2?"},
    ]
    write(tmp_path / "question.jsonl.gz", *questions)
    for category in ("hard_prompt", "creative_writing"):
        answers = [{"uid": uid, "messages": [{}, {"content": {"answer": f"{category} {uid}"}}]} for uid in "ab"]
        write(tmp_path / "model_answer" / f"{arena_hard.BASELINES[category]}.jsonl", *answers)
    found = arena_hard.load_v2_0(tmp_path).opponents
    assert dict(found.select("prompt_id", "reply").iter_rows()) == {
        "arena_hard_v2.0:hard_prompt/a": "hard_prompt a",
        "arena_hard_v2.0:creative_writing/b": "creative_writing b",
    }
    assert set(found["recipe"]) == {"o3-mini-2025-01-31", "gemini-2.0-flash-001"}
    write(tmp_path / "question.jsonl.gz", {"uid": "a", "category": "other", "prompt": "1?"})
    with pytest.raises(ValueError, match="row 1 lacks uid, prompt, or a category of"):
        arena_hard.load_v2_0(tmp_path)


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.mark.parametrize("benchmark", PUBLIC)
def test_a_folder_without_the_files_is_refused_by_name(benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        PUBLIC[benchmark].load(tmp_path)


@pytest.mark.parametrize(("letter", "rating"), [("A", 2.0), ("B", 1.0), ("C", 0.0), ("D", -1.0), ("E", -2.0)])
def test_a_verdict_is_turned_round_where_the_opponent_came_first(letter: str, rating: float) -> None:
    loaded, mine = pair(["good"], ["bad"], Benchmark.ARENA_HARD_V0_1, "arena-hard-v0.1/{}")
    found = rate(
        loaded.items, mine, loaded.opponents, arena_hard.SCALE, "j", lambda asked: [ChatAnswer(letter, None, "stop", 1, 1)] * len(asked)
    )
    assert found.schema == BENCHMARK_RATINGS.schema
    assert dict(found.select("order", "rating").iter_rows()) == {"recipe_first": rating, "opponent_first": -rating}


def test_what_needs_no_reading_is_not_asked() -> None:
    loaded, mine = pair(["same", None, "x", None], ["same", "x", " ", None], Benchmark.ARENA_HARD_V0_1, "arena-hard-v0.1/{}")
    found = rate(loaded.items, mine, loaded.opponents, arena_hard.SCALE, "j", lambda _: pytest.fail("nothing is to be read"))
    assert found.filter(order="recipe_first")["rating"].to_list() == [0.0, -2.0, 2.0, 0.0]
    assert found.filter(order="opponent_first")["rating"].to_list() == [0.0, -2.0, 2.0, 0.0]


def test_probabilities_give_an_expected_rating_and_errors_none() -> None:
    loaded, mine = pair(["a", "b"], ["c", "d"], Benchmark.ALPACA_EVAL)
    answers = [
        ChatAnswer("A", None, "stop", 1, 1, [0.8, 0.2]),
        ChatAnswer("B", None, "stop", 1, 1, [0.4, 0.6]),
        ChatAnswer("A", None, "stop", 1, 1, [0.7, 0.3]),
        ChatAnswer(None, "busy: try again", None, 1, 0),
    ]
    found = rate(loaded.items, mine, loaded.opponents, alpaca_eval.SCALE, "j", lambda _: answers)
    by_order = {(row["prompt_id"][-1], row["order"]): row for row in found.iter_rows(named=True)}
    assert by_order["0", "recipe_first"]["expected_rating"] == pytest.approx(0.8)
    assert by_order["0", "opponent_first"]["expected_rating"] == pytest.approx(0.6)
    assert (by_order["1", "opponent_first"]["rating"], by_order["1", "opponent_first"]["error"]) == (None, "busy: try again")
    assert position_bias(found, 0.5)["prompt_id"].to_list() == ["alpaca_eval:000"]


def test_opponents_must_be_there_and_be_one() -> None:
    loaded, mine = pair(["a", "b"], ["c", "d"], Benchmark.ALPACA_EVAL)
    with pytest.raises(ValueError, match="1 items have no opponent"):
        rate(loaded.items, mine, loaded.opponents[:1], alpaca_eval.SCALE, "j", lambda _: [])
    with pytest.raises(ValueError, match="more than one opponent"):
        rate(loaded.items, mine, pl.concat([loaded.opponents, loaded.opponents]), alpaca_eval.SCALE, "j", lambda _: [])


def arena(mine: list[str | None], theirs: list[str | None], chat: Chat) -> tuple[pl.DataFrame, pl.DataFrame]:
    loaded, replies = pair(mine, theirs, Benchmark.ARENA_HARD_V0_1, "arena-hard-v0.1/{:03}")
    ratings = rate(loaded.items, replies, loaded.opponents, arena_hard.SCALE, "j", chat)
    return ratings, arena_hard.scores(Path(), ratings, pl.concat([replies, loaded.opponents]))


def test_a_strong_verdict_counts_as_three_battles() -> None:
    letters = iter("AEBCDC")  # of three items in both orders: A>>B for mine twice; slightly and a tie; slightly the other way and a tie
    mine: list[str | None] = ["a", "b", "c"]
    _, found = arena(mine, ["x", "y", "z"], lambda asked: [ChatAnswer(next(letters), None, "stop", 1, 1) for _ in asked])
    assert scored(found, Metric.WIN_RATE, "arena_hard_v0.1")[0] == pytest.approx((6 + 1 + 0.5 + 0 + 0.5) / 10)
    assert found.schema == SCORES.schema
    assert found["n"].to_list() == [3] * 3


def test_a_judge_that_goes_by_position_is_exposed_and_corrected() -> None:
    count = 400
    skill: Preference = lambda one, other: 0.8 * (one.startswith("good") - other.startswith("good"))  # noqa: E731
    mine: list[str | None] = [f"good {number}" for number in range(count)]
    theirs: list[str | None] = [f"poor {number}" for number in range(count)]
    fair_ratings, fair = arena(mine, theirs, judging(skill))
    ratings, found = arena(mine, theirs, judging(skill, first=4.0))
    one_order = arena_hard.battles(ratings.filter(order="recipe_first")), arena_hard.battles(ratings.filter(order="opponent_first"))
    shares = [(each["won"] * each["count"]).sum() / each["count"].sum() for each in one_order]
    assert shares[0] > 0.95
    assert shares[1] < 0.15
    assert scored(found, Metric.POSITION_BIAS, "arena_hard_v0.1")[0] > 0.8
    assert scored(fair, Metric.POSITION_BIAS, "arena_hard_v0.1")[0] < 0.5
    assert abs(scored(found, Metric.WIN_RATE, "arena_hard_v0.1")[0] - 0.5) < 0.1
    lead = [position_bias(each, 0.0)["lead_of_first"].mean() for each in (fair_ratings, ratings)]
    assert isinstance(lead[0], float)
    assert isinstance(lead[1], float)
    assert abs(lead[0]) < 0.2 < 1 < lead[1]


def reply(rng: np.random.Generator, headers: float, words: float) -> str:
    parts = [f"# {number}\n- **item**" for number in range(rng.poisson(headers))]
    return "\n".join([*parts, "word " * rng.integers(int(40 * words), int(120 * words))])


@pytest.mark.parametrize(("headers", "words"), [(6, 1.0), (3, 2.0), (0.5, 0.5)])
def test_a_judge_that_loves_style_is_corrected(headers: float, words: float) -> None:
    rng, count = np.random.default_rng(1), 500
    mine, theirs = ([reply(rng, *of) for _ in range(count)] for of in ((headers, words), (2, 1.0)))

    def better(one: str, other: str) -> float:
        longer = (len(one) - len(other)) / (len(one) + len(other))
        marks = [style_control.style(each) for each in (one, other)]
        return 3 * longer + 15 * (marks[0][1] / marks[0][0] - marks[1][1] / marks[1][0])

    _, found = arena(list(mine), list(theirs), judging(better))
    raw, _, _ = scored(found, Metric.WIN_RATE, "arena_hard_v0.1")
    value, low, high = scored(found, Metric.STYLE_CONTROLLED_WIN_RATE, "arena_hard_v0.1")
    assert abs(raw - 0.5) > 0.15
    assert low < 0.5 < high
    assert abs(value - 0.5) < 0.08


def test_style_control_leaves_skill_alone() -> None:
    rng, count = np.random.default_rng(2), 500
    mine, theirs = ([f"{grade} {reply(rng, *of)}" for _ in range(count)] for grade, of in (("good", (5, 1.5)), ("poor", (2, 1.0))))
    _, found = arena(list(mine), list(theirs), judging(lambda one, other: float(one.startswith("good")) - float(other.startswith("good"))))
    raw = scored(found, Metric.WIN_RATE, "arena_hard_v0.1")[0]
    assert scored(found, Metric.STYLE_CONTROLLED_WIN_RATE, "arena_hard_v0.1")[0] == pytest.approx(raw, abs=0.1)
    assert raw > 0.65


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("plain", (0, 0, 0)),
        ("# one\n###### two\n#none", (2, 0, 0)),
        ("- a\n  * b\n1. c\n12. d\n-e", (0, 4, 0)),
        ("**a** and __b__, **c\nd**", (0, 0, 2)),
        ("```\n# code\n- code\n**code**\n```\n# text", (1, 0, 0)),
    ],
)
def test_style_counts_markdown_outside_of_code(text: str, marks: tuple[int, ...]) -> None:
    assert style_control.style(text) == (len(text) / 4, *marks)


def test_all_won_is_a_win_rate_of_one() -> None:
    mine: list[str | None] = ["a", "bb", "ccc", "dddd"]
    _, found = arena(mine, ["e", "f", "g", "h"], judging(lambda one, _: 99.0 if one in mine else -99.0))
    assert [scored(found, metric, "arena_hard_v0.1")[0] for metric in (Metric.WIN_RATE, Metric.STYLE_CONTROLLED_WIN_RATE)] == [1.0, 1.0]


def test_creative_writing_has_a_score_of_its_own() -> None:
    loaded, mine = pair(["a", "b"], ["c", "d"], Benchmark.ARENA_HARD_V2_0, "hard_prompt/{}")
    more, others = pair(["a"], ["d"], Benchmark.ARENA_HARD_V2_0, "creative_writing/{}")
    replies, opponents = pl.concat([mine, others]), pl.concat([loaded.opponents, more.opponents])
    chat = judging(lambda one, other: 9.0 * (other == "c") - 9.0 * (one == "c"))
    ratings = rate(pl.concat([loaded.items, more.items]), replies, opponents, arena_hard.SCALE, "j", chat)
    found = arena_hard.scores(Path(), ratings, pl.concat([replies, opponents]))
    assert dict(found.filter(metric="win_rate").select("benchmark", "n").iter_rows()) == {
        "arena_hard_v2.0": 2,
        "arena_hard_v2.0/creative_writing": 1,
    }


def test_alpaca_eval_is_scored_over_both_orders_and_at_equal_length(tmp_path: Path) -> None:
    rng, count = np.random.default_rng(5), 805
    theirs = ["x" * int(size) for size in rng.integers(200, 800, count)]
    mine = ["y" * int(len(each) * factor) for each, factor in zip(theirs, rng.lognormal(0.5, 0.4, count), strict=True)]
    loaded, replies = pair(list(mine), list(theirs), Benchmark.ALPACA_EVAL)

    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        answers = []
        for first, second in map(shown, requests):
            chance = float(expit(2 * np.tanh((len(first) - len(second)) / 250) + 1.0))  # loves length and the first position
            answers.append(ChatAnswer("A" if chance > 0.5 else "B", None, "stop", 1, 1, [chance, 1 - chance]))
        return answers

    ratings = rate(loaded.items, replies, loaded.opponents, alpaca_eval.SCALE, "j", chat)
    both = pl.concat([replies, loaded.opponents])
    assert alpaca_eval.scores(tmp_path, ratings, both)["metric"].to_list() == ["position_bias", "win_rate"]
    place = range(count)
    table = {"index": [*place, *place], "preference": [0.5] * 2 * count, "instruction_difficulty": [0.0] * 2 * count}
    difference = {"std_delta_len": rng.normal(0, 1, 2 * count)}
    held = pl.DataFrame(table | difference).with_columns(preference=1 / (1 + (2 * pl.col("std_delta_len").tanh()).exp()))
    held.write_csv(tmp_path / "df_gamed.csv")
    found = alpaca_eval.scores(tmp_path, ratings, both)
    assert scored(found, Metric.WIN_RATE, "alpaca_eval")[0] > 0.62
    value, low, high = scored(found, Metric.LENGTH_CONTROLLED_WIN_RATE, "alpaca_eval")
    assert low - 0.02 < 0.5 < high + 0.02
    assert abs(value - 0.5) < 0.05
    assert found["n"].to_list() == [count] * 3


@needs_files
def test_replies_of_a_published_model_are_scored_from_the_shared_files() -> None:
    folder = SHARED / "alpaca_eval"
    loaded = alpaca_eval.load(folder)
    outputs = json.loads(gzip.decompress((folder / "model_outputs" / "gpt-3.5-turbo-1106.json.gz").read_bytes()))
    mine = responses(Benchmark.ALPACA_EVAL, "gpt", {f"alpaca_eval:{place:03}": row["output"] for place, row in enumerate(outputs)})

    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        chances = [float(expit((len(first) - len(second)) / 700)) for first, second in map(shown, requests)]
        return [ChatAnswer("A" if chance > 0.5 else "B", None, "stop", 1, 1, [chance, 1 - chance]) for chance in chances]

    ratings = rate(loaded.items, mine, loaded.opponents, alpaca_eval.SCALE, "j", chat)
    found = alpaca_eval.scores(folder, ratings, pl.concat([mine, loaded.opponents]))
    raw, controlled = (scored(found, metric, "alpaca_eval")[0] for metric in (Metric.WIN_RATE, Metric.LENGTH_CONTROLLED_WIN_RATE))
    assert raw < 0.25  # its outputs are much shorter than the baseline's
    assert abs(controlled - 0.5) < abs(raw - 0.5) / 2


def test_ratings_of_dialogues_have_their_turns_and_intervals_over_dialogues() -> None:
    names = [f"writing/{number}#{turn}" for number in range(20) for turn in (1, 2)]
    prompts = items(item(Benchmark.MT_BENCH, name, ["q"]) for name in names)
    replies = responses(Benchmark.MT_BENCH, "r", {f"mt_bench:{name}": "text" for name in names})

    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        assert requests[0].choices == tuple("ABCDEFGHIJ")
        return [ChatAnswer("J" if number % 2 == 0 else "FGH"[number % 3], None, "stop", 1, 1) for number in range(len(requests))]

    ratings = rate(prompts, replies, RESPONSES.empty(), mt_bench.SCALE, "j", chat)
    found = mt_bench.scores(Path(), ratings, replies)
    values = dict(found.select("benchmark", "value").iter_rows())
    assert values["mt_bench/turn_1"] == 10.0
    assert 6 < values["mt_bench/turn_2"] < 8
    assert values["mt_bench"] == pytest.approx((values["mt_bench/turn_1"] + values["mt_bench/turn_2"]) / 2)
    assert found["n"].to_list() == [20] * 3


@pytest.mark.parametrize("scale", [each.scale for each in PUBLIC.values()])
def test_letters_of_a_scale_begin_with_different_tokens_and_are_explained(scale: Scale) -> None:
    text = (Path(__file__).parents[2] / "rlhi_dagster" / "prompts" / f"{scale.prompt}.md").read_text()
    assert re.findall(r"^([A-Z])  ", text, re.MULTILINE) == list(scale.values)
    assert not scale.is_pairwise or sorted(map(scale.mirrored, scale.values.values())) == sorted(scale.values.values())


def test_only_benchmarks_whose_folder_is_named_are_run_and_the_rest_is_told() -> None:
    one = {"requests_per_user": 1, "arithmetic_problems": 0}
    assert "AlpacaEval 2.0, Arena-Hard, OlympiadBench" in EvaluationSettings(**one).deviations([None])[1]  # type: ignore[arg-type]
    named = EvaluationSettings(**one, benchmarks={Benchmark.ALPACA_EVAL: "data/alpaca_eval"})  # type: ignore[arg-type]
    assert "(Arena-Hard, OlympiadBench" in named.deviations([None])[1]
