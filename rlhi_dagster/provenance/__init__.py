"""Row-level lineage: from a preference pair, an evaluated reply or a user's message to everything that made it, or was made of it.

What belongs here: the facts of a pair, reply or message, what each of its model calls did, and ``rlhi why``. What does not: making pairs
(``preferences``) and why an answer was computed anew (``provenance/answers.py``).

Nothing is recorded for it: tables name what they rest on by id, and rows name their model calls by the keys of the response store.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Fate:
    """What a table says of the pair.

    Attributes:
        table: Its name.
        is_kept: Whether the pair goes on from there.
        drop_reasons: Every reason if not.
    """

    table: str
    is_kept: bool
    drop_reasons: list[str]


@dataclass(frozen=True, slots=True)
class Use:
    """A recipe that draws its pairs from the pair's source.

    Attributes:
        recipe: Its name.
        method: How it trains.
        is_trained_on_it: Whether the checkpoint as it is was trained on this pair; ``None`` if there is none, or it does not say.
    """

    recipe: str
    method: str
    is_trained_on_it: bool | None


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's message with both replies to it.

    Attributes:
        turn_id: The user's message.
        asked_at: When it was sent.
        prompt: The message.
        reply_id: The logged reply.
        logged_reply: Its text.
        reply: The regenerated reply; ``None`` if there is none.
        error: Why there is none, if it was tried.
    """

    turn_id: str
    asked_at: datetime
    prompt: str
    reply_id: str
    logged_reply: str
    reply: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class FollowUp:
    """The message that criticises the compared reply, and what was made of it.

    Attributes:
        turn_id: The message.
        asked_at: When it was sent.
        text: The message.
        label: As labelled; ``None`` if it has no label.
        probability: The labeller's, of the label.
        reattempt_probability: The labeller's, that it asks for another attempt and says what to change.
        span: The words that say what to change.
        labeller: Who labelled.
        applies: Whether what it criticises is in the regenerated reply; ``None`` if that cannot be told.
        applies_probability: The judge's.
        applies_judge: Who decided.
    """

    turn_id: str
    asked_at: datetime
    text: str
    label: str | None
    probability: float | None
    reattempt_probability: float | None
    span: str | None
    labeller: str | None
    applies: bool | None
    applies_probability: float | None
    applies_judge: str | None


@dataclass(frozen=True, slots=True)
class Outright:
    """Something said of the compared reply outright.

    Attributes:
        feedback_id: The row of ``explicit_feedback``.
        kind: A thumb, a rating, a comment, an edit, a regeneration or a choice.
        value: A thumb or a rating.
        text: A comment, or the other reply.
        given_at: When; ``None`` if unknown.
        giver: An end user, staff or a model.
    """

    feedback_id: str
    kind: str
    value: float | None
    text: str | None
    given_at: datetime | None
    giver: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A message that supports a persona line.

    Attributes:
        turn_id: The message; it may be gone from the tables.
        asked_at: When it was sent.
        text: The message.
        quote: The words in it that support the line; ``None`` where the whole message does.
    """

    turn_id: str
    asked_at: datetime | None
    text: str | None
    quote: str | None


@dataclass(frozen=True, slots=True)
class PersonaLine:
    """A line of the persona that was shown.

    Attributes:
        persona_line_id: The version of the line.
        slot: What its versions share.
        line: The line; ``None`` if the table has it no more.
        valid_from: When it became valid.
        valid_until: When it was revised.
        writer: Who wrote it.
        evidence: What supports it.
    """

    persona_line_id: str
    slot: str | None
    line: str | None
    valid_from: datetime | None
    valid_until: datetime | None
    writer: str | None
    evidence: list[Evidence]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two replies.

    Attributes:
        text: The reply; ``None`` if it could not be made.
        reward: The reward model's.
        candidate_id: The sample it was, of ranked candidates.
    """

    text: str | None
    reward: float | None
    candidate_id: str | None


@dataclass(frozen=True, slots=True)
class Call:
    """A model call that the pair or reply rests on.

    Attributes:
        call_id: Key in the response store.
        did: What it did.
        kind: Of answer; ``None`` if it is not in the store any more, as everything below.
        model: Folder name of the model.
        answered_at: When the answer was kept.
        prompt_tokens: Read.
        completion_tokens: Written.
        settings: What it was asked with, beside messages and model.
        error: The reason if it failed.
    """

    call_id: str
    did: str
    kind: str | None = None
    model: str | None = None
    answered_at: datetime | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    settings: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """Everything that made a pair.

    Attributes:
        pair_id: The pair.
        table: The table of its source.
        source: A ``preferences.Source``: what recipes name.
        strategy: How the preferred side was made.
        is_kept: Whether recipes may train on it.
        fates: What its tables say, in the order of the graph.
        split: Where it goes; ``None`` if it did not get into ``preference_pairs``.
        duplicate_of: The pair that stays in its place.
        contaminated_by: The evaluation item that it repeats.
        uses: Recipes of its source.
        user_id: Whose it is; ``None`` outside conversations.
        is_off_policy: Whether another model wrote the rejected side.
        condition: Of ranked candidates: whose persona the reward model saw.
        round: Of an online round: which one.
        model: Who wrote the preferred side.
        reward_model: Who scored the sides; ``None`` where none did.
        meets_feedback: The judge's probability that a rewrite does what was asked.
        prompt: What both sides answer, without persona.
        turns: The conversation up to the compared turn; empty outside conversations.
        follow_up: What criticises the reply; ``None`` where nothing does.
        outright: What was said of the compared reply outright.
        evidence: Of a pair that rests on that, how strong it is; ``None`` of others.
        error: Of a corrected solution: the row of ``reasoning_errors``.
        persona: Lines of the persona shown.
        chosen: The preferred side.
        rejected: The other side.
        calls: Model calls, each once, in the order of the graph.
    """

    pair_id: str
    table: str
    source: str
    strategy: str
    is_kept: bool
    fates: list[Fate]
    split: str | None
    duplicate_of: str | None
    contaminated_by: str | None
    uses: list[Use]
    user_id: str | None
    is_off_policy: bool
    condition: str | None
    round: int | None
    model: str
    reward_model: str | None
    meets_feedback: float | None
    prompt: list[dict[str, str]]
    turns: list[Turn]
    follow_up: FollowUp | None
    outright: list[Outright]
    evidence: str | None
    error: dict[str, Any] | None
    persona: list[PersonaLine]
    chosen: Side
    rejected: Side
    calls: list[Call]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's verdict on the evaluated reply beside another, in one order.

    Attributes:
        judgement_id: The row of ``judgements``.
        opponent: The recipe compared with.
        judge: Who judged.
        criterion: What was asked: which reply serves the user better (`overall`), suits the user, or does what the request asks.
        order: Which reply the judge saw first.
        verdict: Who won; ``None`` if the judge gave no verdict.
        error: Why there is none.
        recipe_probability: The judging model's, that this reply serves better; ``None`` where none is known.
        opponent_probability: The same of the other reply.
        tie_probability: The same of neither.
        preferences_met: Share of the user's preferences that this reply meets; ``None`` if the judge cannot tell.
        is_correct: Whether it has the known answer; ``None`` where there is none.
        is_malformed: Whether it is broken text.
        call_id: The judging model's call; ``None`` where no model was asked.
    """

    judgement_id: str
    opponent: str
    judge: str
    criterion: str
    order: str
    verdict: str | None
    error: str | None
    recipe_probability: float | None
    opponent_probability: float | None
    tie_probability: float | None
    preferences_met: float | None
    is_correct: bool | None
    is_malformed: bool | None
    call_id: str | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Everything that made a checkpoint's reply to an evaluation item, and what was made of it.

    Attributes:
        response_id: The reply.
        recipe: Whose checkpoint wrote it.
        model: That checkpoint.
        benchmark: The benchmark of the item.
        prompt_id: The item.
        user_id: The held-out user; ``None`` outside ``user_eval``.
        prompt: What it answers, without persona.
        persona: Lines of the item's persona.
        reference: The known answer; ``None`` if there is none.
        reply: The reply; ``None`` on error.
        error: Why there is none.
        opponents: Replies of the recipes that it was compared with.
        judgements: Verdicts on it.
        calls: Model calls, each once, in the order of the graph.
    """

    response_id: str
    recipe: str
    model: str
    benchmark: str
    prompt_id: str
    user_id: str | None
    prompt: list[dict[str, str]]
    persona: list[PersonaLine]
    reference: str | None
    reply: str | None
    error: str | None
    opponents: dict[str, str | None]
    judgements: list[Judgement]
    calls: list[Call]
