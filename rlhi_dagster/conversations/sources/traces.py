"""What the rows of one trace say together: requests out of their parts, and what one row knows for all.

What belongs here: putting together the records of a trace (`Record.request`) by the steps that they are of (`Record.step`). What does not:
how requests become conversations (``assembly``).

The user and the conversation that one row names are those of every request of the trace. Rows of one step are parts of one request: the
messages in one, the model in another. Of requests below one another that end in the same reply, the uppermost is kept. Feedback on a step
is on the last reply below it, feedback on the trace on the last reply of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from rlhi_dagster.conversations.sources.assembly import SAME
from rlhi_dagster.conversations.sources.records import Message, Place, Record

STEP = "a step of an agent, a chain or a tool"
"""`Record.note` of a step that repeats what the requests below it say; what else is said of it goes with it."""

_LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)

Row = tuple[Place, Record]


class Joined(NamedTuple):
    """The rows of a trace.

    Attributes:
        rows: All of them; those that others say or that say nothing have a `Record.note`.
        names: Names that feedback may use, with `Message.id` of the reply that it is on.
    """

    rows: list[Row]
    names: dict[str, str]


def joined(rows: Sequence[Row]) -> Joined:
    """Put the rows of one trace together, given in the order of the source."""
    rows = _completed(sorted(rows, key=lambda row: row[1].started_at or _LONG_AGO))
    above = {record.step: record.above for _, record in rows if record.step and record.above is not None}
    steps: dict[str, list[Row]] = {}
    for row in rows:
        steps.setdefault(row[1].step or "", []).append(row)
    speaking = [step for step, parts in steps.items() if step and any(record.note is None for _, record in parts)]
    if len(speaking) == 1:  # it is of this step, what does not say of which
        steps[speaking[0]] += steps.pop("", [])
    requests: dict[str, Row] = {}
    found: list[Row] = []
    for step, parts in steps.items():
        said = [row for row in parts if row[1].note is None]
        found += [row for row in parts if row[1].note is not None]
        is_step = any(record.note == STEP for _, record in parts)
        if said and not is_step:
            requests[step] = _request(said)
        found += [
            (place, replace(record, note=STEP if is_step else SAME)) for place, record in said if is_step or place != requests[step][0]
        ]
    return _named(requests, above, found)


def _completed(rows: Sequence[Row]) -> list[Row]:
    """The rows with the user and the conversation that one of them names."""
    user = next((record.user_key for _, record in rows if record.user_key is not None), None)
    group = next((record.group for _, record in rows if record.group is not None), None)
    return [
        (
            place,
            replace(
                record,
                user_key=record.user_key if record.user_key is not None else user,
                group=record.group if record.group is not None else group,
                conversation_id=group if record.group is None and group is not None else record.conversation_id,
            ),
        )
        for place, record in rows
    ]


def _request(parts: Sequence[Row]) -> Row:
    """One request of its parts, under the row that says most."""
    records = [record for _, record in parts]
    place, most = max(parts, key=lambda row: len(row[1].messages or ()))
    return place, replace(
        most,
        conversation_id=next((record.conversation_id for record in records if record.step), most.conversation_id),
        messages=_messages([record.messages for record in records if record.messages]),
        model=next((record.model for record in records if record.model is not None), None),
        started_at=min((record.started_at for record in records if record.started_at is not None), default=None),
        names=[name for record in records for name in record.names],
    )


def _messages(told: Sequence[list[Message]]) -> list[Message] | None:
    """The messages of a request: the longest list, and what is told singly, in order of time; the reply last."""
    longest = max(told, key=len, default=None)
    if longest is None:
        return None
    has_reply = any(message.id is not None for message in longest)
    known = {message[:2] for message in longest} if len(longest) > 1 else set()
    found = list(longest) if known else []
    for messages in told:
        for message in messages:
            is_told_singly = len(messages) == 1 or (message.id is not None and not has_reply)
            is_repeat = message[:2] in known or (message.sent_at is not None and message in found)
            if is_told_singly and not is_repeat:
                found.append(message)
    if not known:
        found.sort(key=lambda message: message.sent_at or _LONG_AGO)
    found.sort(key=lambda message: message.id is not None)
    question = next((number for number in reversed(range(len(found))) if found[number].role == "user"), None)
    # Older messages were sent with an earlier request, whenever they are told again.
    return [
        message if message.id is not None or number == question else message._replace(sent_at=None) for number, message in enumerate(found)
    ]


def _named(requests: Mapping[str, Row], above: Mapping[str, str], found: list[Row]) -> Joined:
    """Every request once, and what feedback may call its reply."""
    replies = {
        step: record.messages[-1] for step, (_, record) in requests.items() if record.messages and record.messages[-1].id is not None
    }
    names: dict[str, str | None] = {}
    for step, (place, record) in requests.items():
        reply, upper = replies.get(step), list(_above(step, above))
        kept = next((replies[name] for name in reversed(upper) if reply and name in replies and replies[name].text == reply.text), reply)
        found.append((place, record if kept is reply else replace(record, note=SAME)))
        if kept is not None:
            names |= dict.fromkeys((*record.names, *upper, *filter(None, (record.request, step))), kept.id)
            replies = {name: each for name, each in replies.items() if kept is reply or name != step}
    ids = {reply.id for reply in replies.values()}
    return Joined(found, {name: reply for name, reply in names.items() if reply is not None and name not in ids})


def _above(step: str, above: Mapping[str, str]) -> Iterator[str]:
    """The steps that a step was part of, the nearest first."""
    seen = {step}
    while (upper := above.get(step)) is not None and upper not in seen:
        seen.add(upper)
        yield (step := upper)
