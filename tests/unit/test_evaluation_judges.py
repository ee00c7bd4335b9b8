"""Judges: blind, both orders, and what a model's choice says."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from rlhi_dagster import profiles
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import EVAL_PROMPTS, JUDGEMENTS, RESPONSES
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.engines.questions import Chat, template
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.evaluation import Criterion
from rlhi_dagster.evaluation.judgement_checks import malformed_share_is_low, orders_are_balanced
from rlhi_dagster.evaluation.judges import (
    PROMPTS,
    ChatJudge,
    ExactMatch,
    ReplyVerdict,
    RewardJudge,
    TruthJudge,
    arithmetic_answer,
    count_illegible,
    judge_pairs,
)
from rlhi_dagster.evaluation.scores import scores
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.model_calls import Calls
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.profiles import Profile
from rlhi_dagster.roles.judge import judge_recipes, judges
from rlhi_dagster.simulation.town import truth
from rlhi_dagster.simulation.town.content import TOPICS
from rlhi_dagster.simulation.town.style import Style, render
from tests.built import playing

ONE = {Criterion.OVERALL: "{reply_a}"}
"""One question alone."""


def prompts(count: int, benchmark: str = "user_eval", reference: str | None = None) -> pl.DataFrame:
    rows = [
        dict.fromkeys(EVAL_PROMPTS.columns)
        | {"prompt_id": f"p{item}", "benchmark": benchmark, "user_id": f"u{item // 2}" if benchmark == "user_eval" else None}
        | {"prompt": [{"role": "user", "content": "Tulips?"}], "persona": "- Likes it long.", "reference": reference}
        | {"known_of_user": '- Likes it short.\n  said: "shorter"'}
        for item in range(count)
    ]
    return EVAL_PROMPTS.conform(pl.DataFrame(rows, schema=EVAL_PROMPTS.schema, orient="row"))


def responses(recipe: str, replies: list[str | None], benchmark: str = "user_eval") -> pl.DataFrame:
    rows = [
        dict.fromkeys(RESPONSES.columns)
        | {"response_id": f"{recipe}/p{item}", "recipe": recipe, "prompt_id": f"p{item}", "benchmark": benchmark, "reply": reply}
        for item, reply in enumerate(replies)
    ]
    return RESPONSES.conform(pl.DataFrame(rows, schema=RESPONSES.schema, orient="row"))


TOWN = TruthJudge(lambda _, reply: ReplyVerdict(len(set(reply) & set("abc")) / 3, "#" in reply), "town")


def verdicts(frame: pl.DataFrame) -> dict[tuple[str, str], str | None]:
    return {(row["prompt_id"], row["order"]): row["verdict"] for row in frame.iter_rows(named=True)}


def test_each_pair_is_judged_in_both_orders_and_mapped_back() -> None:
    found = judge_pairs(prompts(3), responses("r", ["abc", "a", "ab"]), responses("base", ["a", "abc", "bc"]), TOWN)
    assert found.schema == JUDGEMENTS.schema
    assert found["judgement_id"].n_unique() == 6
    for item, verdict in (("p0", "recipe"), ("p1", "opponent"), ("p2", "tie")):
        assert verdicts(found)[item, "recipe_first"] == verdicts(found)[item, "opponent_first"] == verdict
    assert found.filter(prompt_id="p0")["preferences_met"].to_list() == [1.0, 1.0]
    assert found.filter(prompt_id="p1")["preferences_met"].to_list() == pytest.approx([1 / 3] * 2)


def test_broken_or_missing_text_loses_to_intact_text_that_meets_less() -> None:
    found = judge_pairs(prompts(4), responses("r", ["abc#", None, "#", None]), responses("base", ["x", "x", "##", None]), TOWN)
    assert set(found.filter(pl.col("prompt_id").is_in(["p0", "p1"]))["verdict"]) == {"opponent"}
    assert set(found.filter(pl.col("prompt_id").is_in(["p2", "p3"]))["verdict"]) == {"tie"}
    assert found.filter(prompt_id="p1")["preferences_met"].to_list() == [0.0, 0.0]


def test_the_base_against_itself_is_all_ties() -> None:
    base = responses("base", ["abc", "x", None])
    chat = ChatJudge("chat", lambda requests: pytest.fail("identical replies need no reading"), ONE)
    for judge in (TOWN, chat):
        assert judge_pairs(prompts(3), base, base, judge)["verdict"].to_list() == ["tie"] * 6


def test_known_answers_are_judged_by_rule_whatever_the_judge() -> None:
    items = prompts(3, "arithmetic", "1234.50")
    right, wrong = "3 + 4 ... Answer: 1,234.5", "The answer is 12."
    found = judge_pairs(
        items, responses("r", [right, wrong, None], "arithmetic"), responses("base", [wrong, right, wrong], "arithmetic"), TOWN
    )
    assert found["judge"].unique().to_list() == ["exact_match"]
    assert [verdicts(found)[f"p{item}", "opponent_first"] for item in range(3)] == ["recipe", "opponent", "opponent"]
    assert found.filter(order="recipe_first").sort("prompt_id")["is_correct"].to_list() == [True, False, False]


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Answer: 12", "12"),
        ("12 and 13. Answer: 7 apples", "7"),
        ("First 3, then 40.", "40"),
        ("answer: none, so 5", "5"),
        ("10-7", "7"),
        ("it is -7.50", "-7.5"),
        ("it is \u22127", "-7"),
        ("1,234,567.0", "1234567"),
        ("1, 2, 3", "3"),
        ("Answer: -0", "0"),
        ("no idea", None),
        ("", None),
    ],
)
def test_arithmetic_answers(reply: str, answer: str | None) -> None:
    assert arithmetic_answer(reply) == answer


def test_a_reference_that_is_no_number_is_refused_by_name() -> None:
    items = pl.DataFrame(
        {"prompt_id": ["p9"], "order": ["recipe_first"], "reference": ["3/4"], "first_reply": ["4"], "second_reply": ["4"]}
    )
    with pytest.raises(ValueError, match="p9"):
        ExactMatch().judge(items)


def answering(text: str | None, error: str | None = None, probabilities: list[float] | None = None) -> Chat:
    """A model that gives every request the same answer."""

    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        return [ChatAnswer(text, error, "stop", 9, 1, probabilities, call_id=f"call-{number}") for number, _ in enumerate(requests)]

    return chat


def test_a_choice_is_a_verdict_with_probabilities_and_the_call() -> None:
    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        assert [request.choices for request in requests] == [("A", "B", "C")] * 4
        given = [("A", [0.7, 0.2, 0.1]), ("A", [0.6, 0.3, 0.1]), ("C", [0.3, 0.3, 0.4]), ("B", [0.25, 0.5, 0.25])]
        return [ChatAnswer(text, None, "stop", 9, 1, each, call_id=f"call-{n}") for n, (text, each) in enumerate(given)]

    judge = ChatJudge.with_default_prompts("m@1", chat, [Criterion.OVERALL])
    found = judge_pairs(prompts(2), responses("r", ["x", "y"]), responses("base", ["z", "z"]), judge)
    told = ("prompt_id", "order", "verdict", "recipe_probability", "opponent_probability", "tie_probability", "call_id", "error")
    assert found.sort("prompt_id", "order").select(told).rows() == [
        ("p0", "opponent_first", "opponent", 0.2, 0.7, 0.1, "call-0", None),
        ("p0", "recipe_first", "recipe", 0.6, 0.3, 0.1, "call-1", None),
        ("p1", "opponent_first", "tie", 0.3, 0.3, 0.4, "call-2", None),
        ("p1", "recipe_first", "opponent", 0.25, 0.5, 0.25, "call-3", None),
    ]


def test_an_engine_that_tells_no_probabilities_gives_a_verdict_without() -> None:
    found = judge_pairs(prompts(1), responses("r", ["x"]), responses("base", ["z"]), ChatJudge("m", answering("A"), ONE))
    assert verdicts(found) == {("p0", "recipe_first"): "recipe", ("p0", "opponent_first"): "opponent"}
    assert found.select(pl.col("^.*_probability$").null_count()).row(0) == (2, 2, 2)


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("tie", None, "not_a_choice: the answer is none of A, B, C"),
        ("A is better", None, "not_a_choice: the answer is none of A, B, C"),
        ("a", None, "not_a_choice: the answer is none of A, B, C"),
        (None, "prompt_too_long: 9", "prompt_too_long: 9"),
    ],
)
def test_what_is_no_choice_is_an_error_row_with_its_reason(text: str | None, error: str | None, reason: str) -> None:
    found = judge_pairs(prompts(1), responses("r", ["x"]), responses("base", ["z"]), ChatJudge("m", answering(text, error), ONE))
    assert found.select("verdict", "error").rows() == [(None, reason)] * 2
    assert sorted(found["call_id"]) == ["call-0", "call-1"]
    assert count_illegible(found) == 2


def test_what_needs_no_model_has_no_call_and_no_probability() -> None:
    none = ChatJudge("m", lambda requests: pytest.fail("no reading needed"), ONE)
    for judge, replies in ((none, ["x", None]), (TOWN, ["abc", "x"])):
        found = judge_pairs(prompts(2), responses("r", replies), responses("base", ["x", "z"]), judge)
        assert found["verdict"].null_count() == found["error"].count() == found["call_id"].count() == 0
        assert found.select(pl.col("^.*_probability$").count()).row(0) == (0, 0, 0)


def test_a_judge_that_knows_no_preferences_says_so() -> None:
    judge = TruthJudge(lambda _, reply: ReplyVerdict(None, is_malformed=False), "town")
    found = judge_pairs(prompts(1), responses("r", ["x"]), responses("base", ["z"]), judge)
    assert found.select("verdict", "error").rows() == [(None, "preferences_unknown")] * 2


def test_chat_judge_is_blind() -> None:
    asked: list[str] = []

    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        asked.extend(request.messages[0]["content"] for request in requests)
        return answering("C")(requests)

    judge = ChatJudge.with_default_prompts("chat", chat)
    found = judge_pairs(prompts(1), responses("dpo_x", ["short"]), responses("base", ["{reply_a} and {persona}"]), judge)
    assert found["preferences_met"].null_count() == 2 * len(Criterion)
    assert ["<reply_a>\nshort\n</reply_a>" in text for text in asked] == [False] * 3 + [True] * 3, "each order"
    for text in asked:
        if "does better what the request asks" not in text:
            assert '- Likes it short.\n  said: "shorter"' in text, "the user's own line and what supports it"
        assert "Likes it long" not in text, "not the persona that the model was shown"
        assert '<turn role="user">\nTulips?\n</turn>' in text
        assert "{reply_a} and {persona}" in text, "placeholders inside a reply must survive as they are"
        assert "dpo_x" not in text


@pytest.mark.parametrize("benchmark", ["user_eval", "arithmetic"])
def test_broken_text_is_told_whoever_judges(benchmark: str) -> None:
    judge = ChatJudge("chat", answering("C"), ONE)
    mine = responses("r", ["Plant them deep: 7.", "and so on " * 9, " ", None], benchmark)
    base = responses("base", ["Plant them: 8."] * 4, benchmark)
    found = judge_pairs(prompts(4, benchmark, "7"), mine, base, judge)
    assert found.sort("order", "prompt_id")["is_malformed"].to_list() == [False, True, True, None] * 2
    (share,) = scores(found, mine).filter(metric="malformed").to_dicts()
    assert (share["value"], share["n"], share["judge"]) == (pytest.approx(2 / 3), 3, found["judge"][0])
    assert malformed_share_is_low(found.lazy()).numbers["n"] == 3
    assert malformed_share_is_low(found.filter(prompt_id="p0").lazy()).passed


def test_the_scripts_of_prompt_and_persona_are_known() -> None:
    items = prompts(2).with_columns(persona=pl.Series(["- \u041a\u043e\u0440\u043e\u0442\u043a\u043e.", None]))
    base, judge = responses("base", ["x", "x"]), ChatJudge("chat", answering("C"), ONE)
    found = judge_pairs(items, responses("r", ["\u041f\u043e\u043b\u0438\u0432\u0430\u0439\u0442\u0435 \u0438\u0445."] * 2), base, judge)
    assert found.filter(order="recipe_first").sort("prompt_id")["is_malformed"].to_list() == [False, True]


def test_a_judge_who_knows_overrules_the_signs_in_the_text() -> None:
    found = judge_pairs(prompts(2), responses("r", ["and so on " * 9, "sound #"]), responses("base", ["a", "a"]), TOWN)
    assert found.filter(order="recipe_first").sort("prompt_id")["is_malformed"].to_list() == [False, True]


def test_a_chat_function_that_loses_answers_is_refused() -> None:
    judge = ChatJudge("chat", lambda requests: [], ONE)
    with pytest.raises(ValueError, match="0 answers to 2 requests"):
        judge_pairs(prompts(1), responses("r", ["x"]), responses("base", ["y"]), judge)


def test_an_item_without_a_response_is_named() -> None:
    with pytest.raises(ValueError, match=r"recipe r has no response to 1 of 2 items \(first: p1\)"):
        judge_pairs(prompts(2), responses("r", ["x"]), responses("base", ["y", "z"]), TOWN)


def test_each_question_has_its_verdict_and_the_version_of_its_prompt() -> None:
    def chat(requests: list[ChatRequest]) -> list[ChatAnswer]:
        letters = ["A" if "suits" in request.messages[0]["content"].split("\n")[0] else "C" for request in requests]
        return [ChatAnswer(letter, None, "stop", 9, 1, None, call_id=str(n)) for n, letter in enumerate(letters)]

    found = judge_pairs(prompts(1), responses("r", ["x"]), responses("base", ["z"]), ChatJudge.with_default_prompts("m@1", chat))
    verdicts_of = {(row["criterion"], row["order"]): row["verdict"] for row in found.to_dicts()}
    assert verdicts_of == {
        **{(criterion, order): "tie" for criterion in ("overall", "instruction_following") for order in ("recipe_first", "opponent_first")},
        ("personalization", "recipe_first"): "recipe",
        ("personalization", "opponent_first"): "opponent",
    }
    versions = dict(found.select("criterion", "prompt_version").unique().rows())
    assert versions == {criterion.value: digest_of(template(prompt)) for criterion, prompt in PROMPTS.items()}
    assert orders_are_balanced(found.lazy()).passed
    assert not orders_are_balanced(found.filter(pl.col("criterion").ne("overall") | pl.col("order").ne("recipe_first")).lazy()).passed


def rewarded(requests: Sequence[RewardRequest]) -> list[RewardAnswer]:
    """A letter more is a point more; no reward for a reply with a number sign."""
    replies = [request.messages[-1]["content"] for request in requests]
    return [
        RewardAnswer(None if "#" in said else float(len(said)), "too_long: 9" if "#" in said else None, 1, call_id=said) for said in replies
    ]


def test_a_reward_model_judges_by_the_difference_of_its_rewards() -> None:
    def shown(item: Mapping[str, Any], reply: str) -> RewardRequest:
        return RewardRequest([*item["prompt"], {"role": "assistant", "content": reply}])

    mine, base = responses("r", ["abc", "a", "xy", "x#", None]), responses("base", ["a", "ab", "zw", "z", "z"])
    found = judge_pairs(prompts(5), mine, base, RewardJudge("rm@1", rewarded, shown))
    assert (
        found.filter(prompt_id="p0").sort("order").select("verdict", "call_id", "opponent_call_id").rows() == [("recipe", "abc", "a")] * 2
    )
    by_item = found.sort("prompt_id", "order").unique("prompt_id", keep="first", maintain_order=True)
    assert by_item["verdict"].to_list() == ["recipe", "opponent", "tie", None, "opponent"]
    assert by_item["error"].to_list() == [None, None, None, "too_long: 9", None]
    expected = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1)), 0.5, None, None]
    assert by_item["recipe_probability"].to_list() == [each if each is None else pytest.approx(each) for each in expected]
    assert by_item["call_id"].to_list() == ["abc", "a", "xy", "x#", None], "what needs no reading asks for no reward"


# several judges


def as_sums(frame: pl.DataFrame) -> pl.DataFrame:
    """With ids of their own."""
    return frame.with_columns(prompt_id=pl.concat_str(pl.lit("a"), "prompt_id"))


def test_each_judge_has_a_verdict_on_what_has_no_known_answer_and_the_rule_has_the_rest_once() -> None:
    items = pl.concat([prompts(2), as_sums(prompts(2, "arithmetic", "12"))])
    known = {"r": ["abc", "a"], "s": ["b", "bc"], "base": ["a", "ab"]}
    answers = {"r": ["Answer: 12", "Answer: 1"], "s": ["Answer: 1", "Answer: 1"], "base": ["Answer: 1", "Answer: 12"]}
    of_sums = [as_sums(responses(name, said, "arithmetic")) for name, said in answers.items()]
    replies = pl.concat([*(responses(name, said) for name, said in known.items()), *of_sums])
    found = judge_recipes(items, replies, ["r", "s"], [TOWN, ChatJudge("chat", answering("A"), ONE)])
    told = found.group_by("recipe", "prompt_id", "judge").len().sort("recipe", "prompt_id", "judge")
    assert told["len"].to_list() == [2] * len(told), "each in both orders"
    assert told.select("recipe", "prompt_id", "judge").rows() == [
        (recipe, prompt_id, judge)
        for recipe in ("r", "s")
        for prompt_id, names in (("ap0", ["exact_match"]), ("ap1", ["exact_match"]), ("p0", ["chat", "town"]), ("p1", ["chat", "town"]))
        for judge in names
    ]
    assert found["judgement_id"].n_unique() == len(found)
    assert found.schema == JUDGEMENTS.schema


def test_one_judge_is_as_before() -> None:
    items, replies = prompts(2), pl.concat([responses("r", ["abc", "a"]), responses("base", ["a", "ab"])])
    alone = judge_pairs(items, responses("r", ["abc", "a"]), responses("base", ["a", "ab"]), TOWN)
    assert judge_recipes(items, replies, ["r"], [TOWN]).equals(alone)


class Asked(Workers):
    """Prefers the first reply, and says who was asked at which temperature."""

    def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> Any:
        ((model, requests),) = batches
        return [[ChatAnswer("A", None, "stop", 1, 1, call_id=f"{model.name} {sampling.temperature}") for _ in requests]], CallStats()


def judges_of(profile: Profile, root: Path, items: pl.DataFrame) -> list[Any]:
    return judges(Calls(None, Asked(root), Settings(profile), Lake(root=str(root))), profile, items)  # type: ignore[arg-type]


def test_the_profiles_judges_are_asked_in_its_order_each_as_it_says(tmp_path: Path) -> None:
    models = [{"hub": f"a/b@{'1' * 40}"}, "town", {"hub": f"c/d@{'2' * 40}", "sampling": {"temperature": 0.5}}]
    found = judges_of(playing(profiles.load("sample"), judge=models), tmp_path, EVAL_PROMPTS.empty())
    assert [judge.name.partition(" ")[0].partition("@")[0] for judge in found] == ["a/b", "town", "c/d"]
    replies = responses("r", ["x", "y"]), responses("base", ["y", "x"])
    called = [set(judge_pairs(prompts(2), *replies, judge)["call_id"]) for judge in (found[0], found[2])]
    assert called == [{"a/b 0.0"}, {"c/d 0.5"}], "a judge is greedy unless the profile says otherwise"


def test_the_reward_model_can_judge_and_is_asked_about_the_users_own_lines(tmp_path: Path) -> None:
    asked: list[RewardRequest] = []

    class Scores(Workers):
        """Rewards length."""

        def score(self, context: Any, model: Any, requests: Any, engine: Any) -> Any:
            asked.extend(requests)
            return rewarded(requests), CallStats()

    (tmp_path / "reward_model").mkdir()
    manifest = {"model": {"name": "r/m", "revision": "3" * 40, "path": None}}
    (tmp_path / "reward_model" / "manifest.json").write_text(json.dumps(manifest))
    profile = playing(profiles.load("sample"), judge=["town", "reward"])
    calls = Calls(None, Scores(tmp_path), Settings(profile), Lake(root=str(tmp_path)))  # type: ignore[arg-type]
    (judge,) = judges(calls, profile, EVAL_PROMPTS.empty())[1:]
    found = judge_pairs(prompts(1), responses("dpo_x", ["abc"]), responses("base", ["a"]), judge)
    assert found.select("judge", "verdict", "criterion").unique().rows() == [(f"r/m@{'3' * 16}", "recipe", "overall")]
    assert len(asked) == 2, "each reply once, whatever the order"
    for request in asked:
        assert "Likes it short" in request.messages[0]["content"]
        assert "Likes it long" not in str(request.messages)
        assert "shorter" not in str(request.messages), "a persona as reward models see it has no quotes"


def test_another_judge_changes_no_question_of_the_first_so_its_answers_come_from_the_store(tmp_path: Path) -> None:
    asked: dict[str, list[str]] = {}

    class Notes(Asked):
        """Notes the keys under which the store has the answers."""

        def chat(self, context: Any, batches: Any, engine: Any, sampling: Any) -> Any:
            ((model, requests),) = batches
            asked.setdefault(model.name, []).extend(request.key(model, sampling, "engine") for request in requests)
            return super().chat(context, batches, engine, sampling)

    one, two = {"hub": f"a/b@{'1' * 40}"}, {"hub": f"c/d@{'2' * 40}"}
    items, replies = prompts(2), pl.concat([responses("r", ["abc", "a"]), responses("base", ["a", "ab"])])
    keys = []
    for models in ([one], [two, one]):
        profile = playing(profiles.load("sample"), judge=models)
        calls = Calls(None, Notes(tmp_path), Settings(profile), Lake(root=str(tmp_path)))  # type: ignore[arg-type]
        judge_recipes(items, replies, ["r"], judges(calls, profile, items))
        keys.append(asked.pop("a/b"))
    assert keys[0] == keys[1]
    assert len(keys[0]) == 2 * 2 * len(Criterion)


def test_the_towns_judge_is_refused_where_nobody_knows_the_truth(tmp_path: Path) -> None:
    profile = profiles.load("sample").model_copy(update={"truth": None})
    with pytest.raises(dg.Failure, match=r"judge `town` knows only the simulated users: name a chat model as models\.judge"):
        judges_of(profile, tmp_path, EVAL_PROMPTS.empty())


def test_the_towns_truth_reads_what_a_follow_up_is_about_and_has_no_say_on_small_talk() -> None:
    topic, other = TOPICS[0], TOPICS[1]
    style = Style("short", "prose", "formal", "english")
    opening, reply = {"role": "user", "content": topic.request(0)}, {"role": "assistant", "content": "..."}

    def judged(last: str, about: Any, of: Style) -> Any:
        return truth.verdict_on(style, [opening, reply, {"role": "user", "content": last}], render(about, of))

    assert judged("Make it shorter, please.", topic, style) == truth.Verdict(1.0, False)
    assert judged("Make it shorter, please.", topic, style.with_value("tone", "friendly")) == truth.Verdict(0.75, False)
    assert judged("Make it shorter, please.", other, style).is_malformed, "about something else"
    assert judged(other.request(1), other, style) == truth.Verdict(1.0, False), "the latest request counts"
    assert judged("Thanks!", topic, style) is None
