"""The lineage of a pair, an evaluated reply or a message as text for the terminal, and as JSON.

What belongs here: words, order and shortening. What does not: facts (``trail``).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from rlhi_dagster.base import escapes
from rlhi_dagster.provenance import Call, Evaluated, FollowUp, Judgement, Lineage, Outright, PersonaLine, Side, Turn
from rlhi_dagster.provenance.messages import Message, Said

WIDTH = 110
SHOWN_CHARACTERS = 300
"""Of a text, unless all of it is wanted."""


def as_json(found: Lineage | Evaluated | Message) -> str:
    """Everything, whole."""
    return escapes.visible(json.dumps(asdict(found), indent=1, ensure_ascii=False, default=_plain))


def text(found: Lineage | Evaluated | Message, *, is_full: bool = False) -> str:
    """For people; long texts are shortened unless ``is_full``."""
    limit = None if is_full else SHOWN_CHARACTERS
    if isinstance(found, Message):
        return escapes.lines(_message(found, limit))
    return escapes.lines(_lines(found, limit) if isinstance(found, Lineage) else _evaluated(found, limit))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _lines(found: Lineage, limit: int | None) -> Iterator[str]:
    yield from _head(found)
    if found.turns:
        yield from ("", "conversation")
        for turn in found.turns:
            yield from _turn(turn, limit)
    elif not found.error:
        yield from ("", "prompt")
        for message in found.prompt:
            yield from _said(message["role"], message["content"], limit)
    if found.error:
        yield from ("", "erroneous solution")
        yield from _said("problem", found.error["problem"], limit)
        yield f"  first wrong step {found.error['first_error_step']}, known answer {found.error['answer'] or 'none'}"
        yield from _said(f"remark by {found.error['simulated_user']}", found.error["feedback"], limit)
    if found.follow_up:
        yield from ("", "follow-up", *_follow_up(found.follow_up, limit))
    if found.outright:
        yield from ("", "said of the logged reply outright" + (f" ({found.evidence} evidence)" if found.evidence else ""))
        for said in found.outright:
            yield from _outright(said, limit)
    yield from _personas(found.persona, limit)
    yield ""
    yield from _side("chosen", found.chosen, limit)
    yield from _side("rejected", found.rejected, limit)
    yield from _calls(found.calls)


def _evaluated(found: Evaluated, limit: int | None) -> Iterator[str]:
    yield f"evaluated reply {found.response_id}"
    whose = f", user {found.user_id}" if found.user_id else ""
    yield f"  recipe {found.recipe}, benchmark {found.benchmark}, item {found.prompt_id}{whose}"
    yield f"  written by {found.model}" + (f", error {found.error}" if found.error else "")
    yield from ("", "prompt")
    for message in found.prompt:
        yield from _said(message["role"], message["content"], limit)
    if found.reference is not None:
        yield f"  known answer {found.reference}"
    yield from _personas(found.persona, limit)
    yield ""
    yield from _said("reply", found.reply, limit, indent="")
    for recipe, reply in found.opponents.items():
        yield from _said(f"reply of {recipe}", reply, limit, indent="")
    yield from ("", f"judgements ({len(found.judgements)})", *(line for each in found.judgements for line in _judgement(each)))
    yield from _calls(found.calls)


def _message(found: Message, limit: int | None) -> Iterator[str]:
    yield f"message {found.turn_id}"
    yield f"  user {found.user_id}"
    if found.wish is not None:
        settled = {True: "settled later", False: "not settled", None: "nothing follows, so nobody knows whether it was settled"}
        yield f"  complaint: {found.wish}, on {found.topic}; {settled[found.is_resolved]}"
    yield from ("", f"conversation ({len(found.messages)} of {found.turns} messages of the user)")
    for said in found.messages:
        yield from _said_with_label(said, limit, is_it=said.turn_id == found.turn_id)
    yield from ("", "persona lines that rest on it" if found.persona else "persona lines that rest on it: none")
    for line in found.persona:
        yield from _persona(line, limit)
    yield from _calls(found.calls)


def _said_with_label(said: Said, limit: int | None, *, is_it: bool) -> Iterator[str]:
    yield from _said(f"{'> ' if is_it else ''}{said.turn_id} user, turn {said.turn}, {_moment(said.asked_at)}", said.prompt, limit)
    if said.label is not None:
        words = f", in the words {json.dumps(said.span, ensure_ascii=False)}" if said.span else ""
        yield f"    {said.label} with probability {_number(said.probability)}, by {said.labeller}{words}"
    yield from _said("logged reply" if said.reply is not None else "no reply", said.reply, limit)


def _judgement(found: Judgement) -> list[str]:
    shares = {name: getattr(found, f"{name}_probability") for name in ("recipe", "opponent", "tie")}
    told = [f"probability of {name} {share:.2f}" for name, share in shares.items() if share is not None]
    told += [f"preferences met {found.preferences_met:.2f}"] if found.preferences_met is not None else []
    told += [
        f"{name.removeprefix('is_')}: {'yes' if holds else 'no'}"
        for name in ("is_correct", "is_malformed")
        if (holds := getattr(found, name)) is not None
    ]
    verdict = found.verdict or f"no verdict ({found.error})"
    line = ", ".join([f"against {found.opponent}, {found.order}, {found.criterion}, by {found.judge}: {verdict}", *told])
    return textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ")


def _personas(lines: list[PersonaLine], limit: int | None) -> Iterator[str]:
    yield from ("", "persona shown" if lines else "persona shown: none")
    for line in lines:
        yield from _persona(line, limit)


def _calls(calls: list[Call]) -> Iterator[str]:
    yield from ("", f"model calls ({len(calls)})", *(line for call in calls for line in _call(call)))


def _head(found: Lineage) -> Iterator[str]:
    yield f"pair {found.pair_id}"
    whose = f", user {found.user_id}" if found.user_id else ""
    yield f"  {found.table}, source {found.source}, strategy {found.strategy}{whose}"
    for fate in found.fates:
        yield f"  {fate.table}: {'kept' if fate.is_kept else 'dropped: ' + ', '.join(fate.drop_reasons)}"
    if found.round:
        yield f"  online round {found.round}, with the policy of that round"
    elif len(found.fates) == 1 and found.fates[0].is_kept:
        yield "  preference_pairs: not there yet"
    if found.duplicate_of:
        yield f"  {found.duplicate_of} stays in its place"
    if found.contaminated_by:
        yield f"  repeats the evaluation item {found.contaminated_by}"
    if found.is_kept:
        uses = ", ".join(_use(each.recipe, each.is_trained_on_it) for each in found.uses) or "no recipe"
        yield from textwrap.wrap(f"goes to: {uses}; split {found.split}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    yield f"  written by {found.model}" + (f", scored by {found.reward_model}" if found.reward_model else ", scored by no reward model")
    if found.condition:
        yield f"  persona that the reward model saw: {found.condition}"
    if found.is_off_policy:
        yield "  off-policy: another model wrote the rejected side"
    if found.meets_feedback is not None:
        yield f"  meets the feedback with probability {found.meets_feedback:.2f}"


def _use(recipe: str, is_trained: bool | None) -> str:
    return {True: f"{recipe} (its checkpoint was trained on it)", False: f"{recipe} (not drawn)", None: recipe}[is_trained]


def _turn(turn: Turn, limit: int | None) -> Iterator[str]:
    yield from _said(f"{turn.turn_id} user, {_moment(turn.asked_at)}", turn.prompt, limit)
    yield from _said(f"{turn.reply_id} logged reply", turn.logged_reply, limit)
    if turn.error:
        yield f"  {turn.reply_id} regenerated reply: none ({turn.error})"
    elif turn.reply is not None:
        yield from _said(f"{turn.reply_id} regenerated reply", turn.reply, limit)


def _follow_up(found: FollowUp, limit: int | None) -> Iterator[str]:
    yield from _said(f"{found.turn_id} user, {_moment(found.asked_at)}", found.text, limit)
    if found.label is None:
        yield "  no label"
    else:
        yield f"  {found.label} with probability {_number(found.probability)}, by {found.labeller}"
        yield f"  says what to change: {json.dumps(found.span, ensure_ascii=False) if found.span else 'no words found'}"
    verdict = {True: "fits the regenerated reply", False: "does not fit the regenerated reply", None: "nobody can tell whether it fits"}
    judge = f", by {found.applies_judge}" if found.applies_judge else ""
    judge += f", probability {found.applies_probability:.2f}" if found.applies_probability is not None else ""
    yield f"  {verdict[found.applies]}{judge}"


def _outright(said: Outright, limit: int | None) -> Iterator[str]:
    value = "" if said.value is None else f" {said.value:+g}" if said.kind == "thumb" else f" {said.value:g}"
    line = f"{said.kind}{value} by {said.giver}, {_moment(said.given_at)}"
    if said.text is None:
        yield f"  {line}"
    else:
        yield from _said(line, said.text, limit)


def _persona(line: PersonaLine, limit: int | None) -> Iterator[str]:
    if line.line is None:
        yield f"  {line.persona_line_id}: not in the table any more"
        return
    yield from _said(f"{line.persona_line_id} {line.slot}, from {_moment(line.valid_from)}, by {line.writer}", line.line, limit)
    for each in line.evidence:
        said = each.quote if each.quote is not None else each.text
        yield from _said(f"{each.turn_id}, {_moment(each.asked_at)}", said, limit, indent="    ")


def _side(name: str, side: Side, limit: int | None) -> Iterator[str]:
    details = [f"candidate {side.candidate_id}"] if side.candidate_id else []
    details += [f"reward {side.reward:.4g}"] if side.reward is not None else []
    yield from _said(", ".join([name, *details]), side.text, limit, indent="")


def _call(call: Call) -> Iterator[str]:
    if call.kind is None:
        yield f"  {call.call_id}  {call.did}: not in the store any more"
        return
    engine = {name: value for name, value in (call.settings or {}).items() if name in {"engine", "temperature", "top_p", "seed"}}
    asked = ", ".join(f"{name} {value}" for name, value in engine.items())
    tokens = f"{call.prompt_tokens or 0:,} + {call.completion_tokens or 0:,} tokens"
    failed = f", error {call.error.partition(':')[0]}" if call.error else ""
    yield f"  {call.call_id}  {call.did}{failed}"
    yield f"      {call.model}, {_moment(call.answered_at)}, {tokens}"
    yield from textwrap.wrap(asked, WIDTH, initial_indent="      ", subsequent_indent="      ")


def _said(who: str, said: str | None, limit: int | None, indent: str = "  ") -> Iterator[str]:
    yield f"{indent}{who}:"
    for paragraph in _shortened(said, limit).splitlines() or [""]:
        yield from textwrap.wrap(paragraph, WIDTH, initial_indent=f"{indent}  ", subsequent_indent=f"{indent}  ") or [""]


def _shortened(said: str | None, limit: int | None) -> str:
    if said is None:
        return "(none)"
    if limit is None or len(said) <= limit:
        return said
    return f"{said[: limit * 2 // 3]} [... {len(said) - limit:,} characters ...] {said[-(limit // 3) :]}"


def _moment(moment: datetime | None) -> str:
    return "time unknown" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
