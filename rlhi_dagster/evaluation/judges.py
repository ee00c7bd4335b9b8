"""Who compares two replies, and how a verdict becomes a row.

What belongs here: the judge interface, the judges (``exact_match`` by rule, ``town`` and ``village`` by an injected scoring function, a
chat model by constrained choices, a reward model by the difference of two rewards), and ``judge_pairs``, which shows each pair in both
orders. What does not: calling a model (injected as ``chat`` and ``reward``), putting texts into a prompt (``engines/questions.py``), the
truth about simulated users (injected as ``score``), the signs of broken text (``base/text_health.py``), statistics of recipes (``scores``)
and of judges (``judge_quality``).

A judge is blind: it sees a first and a second reply and never learns which recipe wrote them. Whoever judges, a missing reply
loses to one that is there, and two missing or two identical replies are a tie, so the base against itself is all ties. Whether a
reply is broken text is told of every reply: by the judge if it can tell, else by signs in the text alone.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

import polars as pl

from rlhi_dagster.base.tables import JUDGEMENTS
from rlhi_dagster.base.text_health import flaw
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.engines.questions import Chat, question, template, transcript
from rlhi_dagster.evaluation import Benchmark, Criterion

BY_REFERENCE = frozenset({Benchmark.ARITHMETIC})
"""Benchmarks whose items have a known answer and are judged by ``exact_match`` whatever the profile says."""

_NUMBER = re.compile(r"(?:(?<![\w.)])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


class Choice(StrEnum):
    """A blind verdict: which position won."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"


class Verdict(StrEnum):
    """A verdict once the positions are mapped back to who wrote what."""

    RECIPE = "recipe"
    OPPONENT = "opponent"
    TIE = "tie"


class Order(StrEnum):
    """Which reply the judge saw first."""

    RECIPE_FIRST = "recipe_first"
    OPPONENT_FIRST = "opponent_first"


@dataclass(frozen=True, slots=True)
class ReplyVerdict:
    """What a judge can say about one reply alone; ``None`` where it cannot tell.

    Attributes:
        preferences_met: Share of the user's preferences that the reply meets.
        is_malformed: Whether the reply is broken text.
        is_correct: Whether the reply gives the known answer.
    """

    preferences_met: float | None = None
    is_malformed: bool | None = None
    is_correct: bool | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a judge made of a pair.

    Attributes:
        choice: Which position won; ``None`` if there is no verdict.
        error: Why there is none: a word, a colon, and what a person needs to know.
        probabilities: Of first, second and tie; ``None`` where no model chose or the engine does not tell.
        call_id: The model call, as a key of the response store, a reward model's on the first reply; ``None`` where no model was asked.
        criterion: What was asked.
        prompt_version: Digest of the question before texts are put in; ``None`` where none was asked.
        second_call_id: A reward model's call on the second reply.
    """

    choice: Choice | None
    error: str | None = None
    probabilities: tuple[float, float, float] | None = None
    call_id: str | None = None
    criterion: Criterion = Criterion.OVERALL
    prompt_version: str | None = None
    second_call_id: str | None = None


CHOICES = {"A": Choice.FIRST, "B": Choice.SECOND, "C": Choice.TIE}
"""What a chat model answers with, as ``prompts/judge.md`` lists it, and what that says."""

PROMPTS = {
    Criterion.OVERALL: "judge",
    Criterion.PERSONALIZATION: "judge_personalization",
    Criterion.INSTRUCTION_FOLLOWING: "judge_instruction_following",
}
"""The question to a chat model by criterion: names in ``prompts/``."""
_FAR = 700.0
"""Rewards further apart than this leave no probability to the lower one."""

_VERDICT_SCHEMA = {
    "prompt_id": pl.String(),
    "order": pl.String(),
    "criterion": pl.String(),
    "prompt_version": pl.String(),
    "choice": pl.String(),
    "error": pl.String(),
    **{f"{choice}_probability": pl.Float64() for choice in Choice},
    "first_call_id": pl.String(),
    "second_call_id": pl.String(),
    **{
        f"{side}_{name}": dtype
        for side in ("first", "second")
        for name, dtype in (("preferences_met", pl.Float64()), ("is_malformed", pl.Boolean()), ("is_correct", pl.Boolean()))
    },
}


class Judge(Protocol):
    """Compares two replies without knowing who wrote them."""

    @property
    def name(self) -> str:
        """Name as it appears in ``JUDGEMENTS.judge``."""

    def judge(self, items: pl.DataFrame) -> pl.DataFrame:
        """Judge every row of ``items``.

        Args:
            items: One row per (``prompt_id``, ``order``) with ``benchmark``, ``prompt`` (messages), ``persona``, ``known_of_user``,
                ``reference``, ``first_reply`` and ``second_reply``.

        Returns:
            One row per row of ``items`` and criterion: ``prompt_id``, ``order``, the fields of `Decision`, the probabilities as
            ``<choice>_probability``, and, for ``first_`` and ``second_``, the fields of `ReplyVerdict`.
        """


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Judges by the known answer: correct beats wrong, otherwise a tie."""

    name: str = "exact_match"

    def judge(self, items: pl.DataFrame) -> pl.DataFrame:
        """See `Judge.judge`.

        Raises:
            ValueError: An item has no reference, or one that is not a plain number.
        """
        rows = []
        for item in items.iter_rows(named=True):
            reference = _plain_number(item["prompt_id"], item["reference"])
            first, second = (
                ReplyVerdict(is_correct=arithmetic_answer(reply or "") == reference)
                for reply in (item["first_reply"], item["second_reply"])
            )
            if first.is_correct == second.is_correct:
                choice = Choice.SECOND if _only_second(item) else Choice.FIRST if _only_first(item) else Choice.TIE
            else:
                choice = Choice.FIRST if first.is_correct else Choice.SECOND
            rows.append(_verdict_row(item, Decision(choice), first, second))
        return _verdicts(rows)


@dataclass(frozen=True, slots=True)
class TruthJudge:
    """Judges by the truth about the simulated users: more preferences met wins; malformed loses to intact.

    Attributes:
        score: Says of (``prompt_id``, reply) how many preferences it meets and whether it is broken.
        name: Name as it appears in ``JUDGEMENTS.judge``.
    """

    score: Callable[[str, str], ReplyVerdict]
    name: str

    def judge(self, items: pl.DataFrame) -> pl.DataFrame:
        """See `Judge.judge`; each distinct reply is scored once."""
        known: dict[tuple[str, str], ReplyVerdict] = {}
        rows = []
        for item in items.iter_rows(named=True):
            sides = []
            for reply in (item["first_reply"], item["second_reply"]):
                if reply is None:
                    sides.append(ReplyVerdict(preferences_met=0.0))
                elif not reply.strip():
                    sides.append(ReplyVerdict(preferences_met=0.0, is_malformed=True))
                else:
                    key = (item["prompt_id"], reply)
                    if key not in known:
                        known[key] = self.score(*key)
                    sides.append(known[key])
            intact = [
                reply is not None and not side.is_malformed
                for reply, side in zip((item["first_reply"], item["second_reply"]), sides, strict=True)
            ]
            choice = _by_preferences((sides[0], sides[1]), (intact[0], intact[1]))
            rows.append(_verdict_row(item, Decision(choice, None if choice else "preferences_unknown"), *sides))
        return _verdicts(rows)


@dataclass(frozen=True, slots=True)
class ChatJudge:
    """Asks a chat model which of two replies is better: of each pair one constrained choice a criterion.

    Attributes:
        name: Name as it appears in ``JUDGEMENTS.judge``, with model and revision.
        chat: The model.
        questions: What is asked by criterion, with ``{persona}``, ``{conversation}``, ``{reply_a}`` and ``{reply_b}``.
    """

    name: str
    chat: Chat
    questions: Mapping[Criterion, str]

    @classmethod
    def with_default_prompts(cls, name: str, chat: Chat, criteria: Collection[Criterion] = tuple(Criterion)) -> ChatJudge:
        """A judge with the prompts of `PROMPTS`, of all criteria or of some."""
        return cls(name, chat, {criterion: template(PROMPTS[criterion]) for criterion in criteria})

    def request(self, item: Mapping[str, Any], criterion: Criterion = Criterion.OVERALL) -> ChatRequest:
        """What is asked about one item; the first reply is A, the second B. Nothing is cut."""
        shown = {
            "persona": item["known_of_user"] or "(nothing is known)",
            "conversation": transcript(item["prompt"]),
            "reply_a": item["first_reply"],
            "reply_b": item["second_reply"],
        }
        return ChatRequest(question(self.questions[criterion], shown), choices=tuple(CHOICES))

    def judge(self, items: pl.DataFrame) -> pl.DataFrame:
        """See `Judge.judge`; items decided without reading (a missing reply, identical replies) are not sent to the model.

        Raises:
            ValueError: The chat function returned another number of answers than it got requests.
        """
        asked = [(item, criterion, _without_reading(item)) for item in items.iter_rows(named=True) for criterion in self.questions]
        requests = [self.request(item, criterion) for item, criterion, choice in asked if choice is None]
        answers = self.chat(requests) if requests else []
        if len(answers) != len(requests):
            raise ValueError(f"judge {self.name}: {len(answers)} answers to {len(requests)} requests")
        given = iter(answers)
        versions = {criterion: digest_of(text) for criterion, text in self.questions.items()}
        rows = []
        for item, criterion, choice in asked:
            decision = _decision(next(given)) if choice is None else Decision(choice)
            decision = replace(decision, criterion=criterion, prompt_version=versions[criterion])
            rows.append(_verdict_row(item, decision, ReplyVerdict(), ReplyVerdict()))
        return _verdicts(rows)


@dataclass(frozen=True, slots=True)
class RewardJudge:
    """Judges by a reward model: the reply with the higher reward wins.

    The probability of the first is the Bradley-Terry model's, ``sigmoid(reward of the first - reward of the second)``, and no tie has any.

    Attributes:
        name: Name as it appears in ``JUDGEMENTS.judge``, with model and revision.
        reward: Gives the rewards of conversations, in order.
        shown: The conversation that ends with a reply, as the reward model sees it with what is known of the user.
    """

    name: str
    reward: Callable[[Sequence[RewardRequest]], Sequence[RewardAnswer]]
    shown: Callable[[Mapping[str, Any], str], RewardRequest]

    def judge(self, items: pl.DataFrame) -> pl.DataFrame:
        """See `Judge.judge`; each distinct reply to an item is scored once, those of items decided without reading not at all.

        Raises:
            ValueError: The reward function returned another number of rewards than it got requests.
        """
        rows = [(item, _without_reading(item)) for item in items.iter_rows(named=True)]
        requests = {
            (item["prompt_id"], item[side]): self.shown(item, item[side])
            for item, choice in rows
            for side in ("first_reply", "second_reply")
            if choice is None
        }
        answers = self.reward(list(requests.values())) if requests else []
        if len(answers) != len(requests):
            raise ValueError(f"judge {self.name}: {len(answers)} rewards to {len(requests)} requests")
        given = dict(zip(requests, answers, strict=True))
        found = []
        for item, choice in rows:
            sides = [given.get((item["prompt_id"], item[side])) for side in ("first_reply", "second_reply")]
            decision = Decision(choice) if sides[0] is None or sides[1] is None else _by_rewards(sides[0], sides[1])
            found.append(_verdict_row(item, decision, ReplyVerdict(), ReplyVerdict()))
        return _verdicts(found)


def judge_pairs(prompts: pl.DataFrame, responses: pl.DataFrame, opponent_responses: pl.DataFrame, judge: Judge) -> pl.DataFrame:
    """Compare two recipes' replies to the same items, each pair in both orders.

    Args:
        prompts: ``EVAL_PROMPTS``; every item needs a row in both frames of responses (error rows count).
        responses: ``RESPONSES`` of one recipe.
        opponent_responses: ``RESPONSES`` of one recipe, usually the base; may be the same one.
        judge: Judges the benchmarks without known answers; those with (`BY_REFERENCE`) go to `ExactMatch`.

    Returns:
        ``JUDGEMENTS``: two rows per item and criterion.

    Raises:
        ValueError: A frame holds several recipes, an item lacks a response, or the judge lost rows.
    """
    recipe, opponent = _only_recipe(responses, "responses"), _only_recipe(opponent_responses, "opponent_responses")
    if prompts.is_empty():
        return JUDGEMENTS.empty()
    pairs = _with_reply(_with_reply(prompts, responses, recipe, "recipe_reply"), opponent_responses, opponent, "opponent_reply")
    pairs = pairs.with_columns(has_flaw=pl.Series([_has_flaw(row) for row in pairs.iter_rows(named=True)], dtype=pl.Boolean()))
    items = pl.concat(
        pairs.with_columns(order=pl.lit(order.value), first_reply=pl.col(first), second_reply=pl.col(second))
        for order, first, second in (
            (Order.RECIPE_FIRST, "recipe_reply", "opponent_reply"),
            (Order.OPPONENT_FIRST, "opponent_reply", "recipe_reply"),
        )
    ).sort("prompt_id", "order")
    has_reference = pl.col("benchmark").is_in([name.value for name in BY_REFERENCE])
    by_judge: list[tuple[Judge, pl.DataFrame]] = [(judge, items.filter(~has_reference)), (ExactMatch(), items.filter(has_reference))]
    judged = [_judged(who, share, recipe, opponent) for who, share in by_judge if len(share)]
    return JUDGEMENTS.conform(pl.concat(judged))


def count_illegible(judgements: pl.DataFrame) -> int:
    """Rows of ``JUDGEMENTS`` in which the judge gave no verdict."""
    return judgements["verdict"].null_count()


def arithmetic_answer(reply: str) -> str | None:
    """The number a reply gives as its answer: the last one after the last ``Answer:``, else the last one at all.

    Integers and decimals only; ``1,234.50`` and ``1234.5`` are the same answer.
    """
    text = reply.replace("\u2212", "-")
    for part in (text[text.lower().rfind("answer:") :] if "answer:" in text.lower() else "", text):
        if numbers := _NUMBER.findall(part):
            value = Decimal(numbers[-1].replace(",", ""))
            return "0" if value == 0 else format(value.normalize(), "f")
    return None


def _judged(judge: Judge, items: pl.DataFrame, recipe: str, opponent: str) -> pl.DataFrame:
    verdicts = judge.judge(items)
    joined = items.join(verdicts, on=["prompt_id", "order"], how="inner", validate="1:m")
    criteria = verdicts["criterion"].n_unique()
    if len(joined) != len(items) * criteria or verdicts.select("prompt_id", "order", "criterion").is_duplicated().any():
        raise ValueError(f"judge {judge.name} returned {len(joined)} verdicts for {len(items)} items by {criteria} criteria")
    recipe_first = pl.col("order") == Order.RECIPE_FIRST.value
    won_by_recipe = recipe_first == (pl.col("choice") == Choice.FIRST.value)
    mine = {
        name: pl.when(recipe_first).then(f"first_{name}").otherwise(f"second_{name}")
        for name in ("preferences_met", "is_correct", "is_malformed")
    }
    mine["is_malformed"] = pl.coalesce(mine["is_malformed"], "has_flaw")
    probabilities = {
        f"{side}_probability": pl.when(recipe_first == is_recipe).then("first_probability").otherwise("second_probability")
        for side, is_recipe in (("recipe", True), ("opponent", False))
    }
    return joined.with_columns(
        judgement_id=pl.struct("prompt_id", "order", "criterion").map_elements(
            lambda row: _digest(recipe, opponent, row["prompt_id"], judge.name, row["order"], row["criterion"]), return_dtype=pl.String()
        ),
        recipe_characters=pl.col("recipe_reply").str.len_chars().cast(pl.Int64),
        opponent_characters=pl.col("opponent_reply").str.len_chars().cast(pl.Int64),
        call_id=pl.when(recipe_first | pl.col("second_call_id").is_null()).then("first_call_id").otherwise("second_call_id"),
        opponent_call_id=pl.when(recipe_first).then("second_call_id").when(pl.col("second_call_id").is_not_null()).then("first_call_id"),
        recipe=pl.lit(recipe),
        opponent=pl.lit(opponent),
        judge=pl.lit(judge.name),
        verdict=pl.when(pl.col("choice").is_null())
        .then(pl.lit(None, dtype=pl.String()))
        .when(pl.col("choice") == Choice.TIE.value)
        .then(pl.lit(Verdict.TIE.value))
        .when(won_by_recipe)
        .then(pl.lit(Verdict.RECIPE.value))
        .otherwise(pl.lit(Verdict.OPPONENT.value)),
        **mine,
        **probabilities,
    ).select(list(JUDGEMENTS.columns))


def _has_flaw(pair: Mapping[str, Any]) -> bool | None:
    """Whether the recipe's reply shows signs of broken text; ``None`` without a reply.

    A reply that was cut off at the limit is no such sign here: with the limits of real profiles sound replies are cut off, too.
    """
    if pair["recipe_reply"] is None:
        return None
    shown = [pair["persona"] or "", *(message["content"] for message in pair["prompt"])]
    return flaw("\n\n".join(shown), pair["recipe_reply"], has_ended=True) is not None


def _by_preferences(sides: tuple[ReplyVerdict, ReplyVerdict], is_intact: tuple[bool, bool]) -> Choice | None:
    first, second = sides
    if is_intact[0] != is_intact[1]:
        return Choice.FIRST if is_intact[0] else Choice.SECOND
    if not any(is_intact):
        return Choice.TIE
    if first.preferences_met is None or second.preferences_met is None:
        return None
    if math.isclose(first.preferences_met, second.preferences_met, abs_tol=1e-9):
        return Choice.TIE
    return Choice.FIRST if first.preferences_met > second.preferences_met else Choice.SECOND


def _without_reading(item: Mapping[str, Any]) -> Choice | None:
    if _only_first(item):
        return Choice.FIRST
    if _only_second(item):
        return Choice.SECOND
    is_same = item["first_reply"] == item["second_reply"] or (_is_missing(item["first_reply"]) and _is_missing(item["second_reply"]))
    return Choice.TIE if is_same else None


def _only_first(item: Mapping[str, Any]) -> bool:
    return not _is_missing(item["first_reply"]) and _is_missing(item["second_reply"])


def _only_second(item: Mapping[str, Any]) -> bool:
    return _is_missing(item["first_reply"]) and not _is_missing(item["second_reply"])


def _is_missing(reply: str | None) -> bool:
    return reply is None or not reply.strip()


def _plain_number(prompt_id: str, reference: str | None) -> str:
    answer = arithmetic_answer(reference or "")
    if answer is None or not _NUMBER.fullmatch((reference or "").strip()):
        raise ValueError(f"item {prompt_id}: exact_match needs a plain number as reference")
    return answer


def _decision(answer: ChatAnswer) -> Decision:
    """What a model's answer says; one that is none of the choices says nothing."""
    call, choice = answer.call_id or None, CHOICES.get(answer.text or "")
    if choice is None:
        return Decision(None, answer.error or f"not_a_choice: the answer is none of {', '.join(CHOICES)}", call_id=call)
    if answer.probabilities is None:
        return Decision(choice, call_id=call)
    first, second, tie = answer.probabilities
    return Decision(choice, None, (first, second, tie), call)


def _by_rewards(first: RewardAnswer, second: RewardAnswer) -> Decision:
    """What two rewards say of the pair."""
    asked = Decision(None, call_id=first.call_id or None, second_call_id=second.call_id or None)
    if first.reward is None or second.reward is None:
        return replace(asked, error=first.error or second.error or "no_reward: the reward model gave none")
    lead = first.reward - second.reward
    probability = 1 / (1 + math.exp(-lead)) if lead > -_FAR else 0.0
    choice = Choice.TIE if lead == 0 else Choice.FIRST if lead > 0 else Choice.SECOND
    return replace(asked, choice=choice, probabilities=(probability, 1 - probability, 0.0))


def _verdict_row(item: Mapping[str, Any], decision: Decision, first: ReplyVerdict, second: ReplyVerdict) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt_id": item["prompt_id"], "order": item["order"]}
    row |= {"choice": decision.choice and decision.choice.value, "error": decision.error, "criterion": decision.criterion.value}
    row |= {"first_call_id": decision.call_id, "second_call_id": decision.second_call_id, "prompt_version": decision.prompt_version}
    row |= {f"{choice}_probability": each for choice, each in zip(Choice, decision.probabilities or (None,) * 3, strict=True)}
    for side, verdict in (("first", first), ("second", second)):
        for name in ("preferences_met", "is_malformed", "is_correct"):
            row[f"{side}_{name}"] = getattr(verdict, name)
    return row


def _verdicts(rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=_VERDICT_SCHEMA)


def _only_recipe(responses: pl.DataFrame, which: str) -> str:
    recipes = responses["recipe"].unique().sort().to_list()
    if len(recipes) != 1:
        raise ValueError(f"{which} must hold one recipe, not {recipes}")
    return str(recipes[0])


def _with_reply(prompts: pl.DataFrame, responses: pl.DataFrame, recipe: str, column: str) -> pl.DataFrame:
    missing = prompts.join(responses, on="prompt_id", how="anti").sort("prompt_id")
    if len(missing):
        raise ValueError(f"recipe {recipe} has no response to {len(missing)} of {len(prompts)} items (first: {missing['prompt_id'][0]})")
    replies = responses.select("prompt_id", pl.col("reply").alias(column))
    return prompts.join(replies, on="prompt_id", how="left", validate="1:1")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
