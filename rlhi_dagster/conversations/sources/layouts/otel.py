"""OpenTelemetry's conventions for generative AI: spans and log records with attributes ``gen_ai.*``.

What belongs here: what these attributes and events mean, and what any span says of user and conversation. What does not: how spans are
written (``sources.spans``), and how the rows of a trace are put together (``sources.traces``).

A request is a span, the event ``gen_ai.client.inference.operation.details``, or, of emitters up to version 1.36, an event for each message.
It has its whole history, or, where the server keeps the conversation, only what is new. Spans of agents and tools repeat what the requests
below them say, and are not read.

What it lacks: messages are there only if the application opts in; a request without them is quarantined. There is no attribute for the user
but the general ``user.id`` and ``enduser.id``, and none for feedback of users: evaluations count as a model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rlhi_dagster.conversations.sources import cells, parts, scores, spans, traces
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import exchanges, messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, Giver, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

USUAL: Mapping[SourceField, tuple[str, ...]] = {
    SourceField.CONVERSATION_ID: (
        "gen_ai.conversation.id", "session.id", "metadata.session_id", "metadata.thread_id", "metadata.conversation_id",
        "traceloop.association.properties.session_id",
    ),
    SourceField.USER: (
        "user.id", "enduser.id", "enduser.pseudo.id", "metadata.user_id", "traceloop.association.properties.user_id",
        "resource.attributes.user.id", "resource.attributes.enduser.id",
    ),
    SourceField.STARTED_AT: ("started_at",),
    SourceField.MODEL: (
        "gen_ai.response.model", "gen_ai.request.model", "llm.response.model_name", "llm.model_name", "llm.request.model_name",
        "llm.invocation_parameters.model",
    ),
}  # fmt: skip
"""Attributes of spans by our names."""

SCORE, DRAFT, METRIC = "a score", "a draft that the user did not get", "a metric"
LOG, SPAN = "a log record of something else", "a span of something else"

_DETAILS = ("gen_ai.client.inference.operation.details", "gen_ai.content.prompt", "gen_ai.content.completion")
_METRICS = ("resourceMetrics", "resource_metrics")
_ROLES = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_CHOICE = "gen_ai.choice"
_EVALUATION = "gen_ai.evaluation.result"
_REQUESTS = ("chat", "text_completion", "generate_content")
_STEPS = ("embeddings", "execute_tool", "create_agent", "invoke_agent", "invoke_workflow", "retrieval")


def record(row: Mapping[str, Any], attributes: spans.Tree, settings: SourceSettings) -> Record:
    """What a span or a log record says beside its messages, and where it lies.

    Raises:
        MistypedError: A value cannot be what its field needs, or the row is neither a span nor a log record.
    """
    view = {
        **attributes,
        **row,
        "attributes": attributes,
        "resource": {"attributes": spans.resource(row)},
        "started_at": spans.started_at(row),
    }
    found = messages.fields(view, settings, USUAL)
    found.group = found.conversation_id
    found.request = spans.trace(row) or spans.span(row)
    found.step, found.above = (spans.span(row) or "") if found.request is not None else None, spans.parent(row)
    found.conversation_id = found.group or found.step or found.request
    if found.request is None and not spans.is_log(row):
        raise MistypedError("neither a span nor a log record")
    return found


def evaluations(row: Mapping[str, Any], target: str | None, settings: SourceSettings) -> list[Feedback]:
    """The results of judges among the events of a row."""
    given = []
    for event in spans.events(row):
        if event.name == _EVALUATION:
            said = event.attributes
            given += scores.given(
                str(cells.at(said, "gen_ai.evaluation.name")),
                cells.at(said, "gen_ai.evaluation.score.value"),
                settings,
                target=messages.shared_key(said, "gen_ai.response.id") or target,
                giver=Giver.MODEL,
                label=messages.shared_key(said, "gen_ai.evaluation.score.label"),
                comment=messages.shared_key(said, "gen_ai.evaluation.explanation"),
                given_at=_time(event.at),
            )
    return given


def _fits(row: Mapping[str, Any]) -> bool:
    is_placed = spans.span(row) is not None or spans.trace(row) is not None or spans.is_log(row)
    return is_placed and ("gen_ai" in spans.attributes(row) or any(event.name.startswith("gen_ai.") for event in spans.events(row)))


def dialogue(
    asked: list[Message], answered: list[Message], name: str | None, asked_at: datetime | None, answered_at: datetime | None
) -> list[Message]:
    """Messages of a request: its history, what it asks, and the reply under the name that feedback may use."""
    found = [message._replace(id=None, parent=None, sent_at=None) for message in asked + answered]
    question = next((number for number in reversed(range(len(asked))) if found[number].role == "user"), None)
    if question is not None:
        found[question] = found[question]._replace(sent_at=asked_at)
    if answered:
        found[-1] = found[-1]._replace(id=name, sent_at=answered_at)
    return found


def answered_at(row: Mapping[str, Any]) -> datetime | None:
    """When a request had its reply."""
    try:
        return cells.time(spans.ended_at(row))
    except MistypedError:
        return messages.NO_TIME


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    del place
    if any(name in row for name in _METRICS):
        return Record(note=METRIC)
    attributes, events = spans.attributes(row), spans.events(row)
    found = record(row, attributes, settings)
    response = next((name for each in (attributes, *_details(events)) if (name := messages.shared_key(each, "gen_ai.response.id"))), None)
    name = found.step or response or found.request
    found.names = [response] if response is not None else []
    operation = cells.at(attributes, "gen_ai.operation.name")
    found.feedback = evaluations(row, name if operation in _REQUESTS else spans.span(spans.linked(row) or row) or name, settings)
    if operation in _STEPS:
        found.note = traces.STEP
        return found
    asked, answered = _whole([attributes, *_details(events)])
    if not asked and not answered:
        asked, answered = _apart(events)
    is_log, is_draft = spans.is_log(row), any(each.name == _CHOICE for each in events)
    if asked or answered:
        found.messages = dialogue(asked, answered, name, found.started_at, answered_at(row) or found.started_at)
        if is_log and len(found.messages) == 1:  # its time is what orders it among the others
            found.messages = [found.messages[0]._replace(sent_at=found.started_at)]
    elif found.feedback:
        found.note, found.step = SCORE, None
    elif is_log or (operation not in _REQUESTS and not cells.at(attributes, "gen_ai.request.model")):
        found.note = DRAFT if is_draft else LOG if is_log else SPAN
    return found


def _time(value: Any) -> datetime | None:
    """A time, or None for what is none."""
    try:
        return cells.time(value)
    except MistypedError:
        return None


def _details(events: list[spans.Event]) -> list[spans.Tree]:
    """What is said of a whole request among events."""
    return [event.attributes for event in events if event.name in _DETAILS]


def _whole(told: list[spans.Tree]) -> tuple[list[Message], list[Message]]:
    """What is asked and what is answered, where a request is told as a whole; of drafts, the first is what the user got."""

    def of(*names: str) -> Any:
        return next((value for name in names for each in told if (value := cells.at(each, name)) is not None), None)

    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        value = of(name)
        if isinstance(value, str) and value.lstrip().startswith(("[", "{")) and isinstance(parsed(value), str):
            raise MistypedError(f"{name}: JSON that is cut off")
    instructions = parts.text_of(parsed(of("gen_ai.system_instructions")))
    asked = exchanges.asked(_by("user", of("gen_ai.input.messages", "gen_ai.prompt")))
    answered = exchanges.answered(_by("assistant", of("gen_ai.output.messages", "gen_ai.completion")))
    return ([Message("system", instructions)] if instructions and asked else []) + asked, answered[:1]


def _by(role: str, value: Any) -> Any:
    """Messages with a role where they have none."""
    found = parsed(value)
    return (
        [{**each, "role": each.get("role") or role} if isinstance(each, Mapping) else each for each in found]
        if isinstance(found, list)
        else value
    )


def _apart(events: list[spans.Event]) -> tuple[list[Message], list[Message]]:
    """What is asked and what is answered, where every message is an event."""
    asked = [_message(event, _ROLES[event.name]) for event in events if event.name in _ROLES]
    drafts = [event for event in events if event.name == _CHOICE and event.attributes.get("index") in (None, 0, "0")]
    return asked, [_message(event, "assistant") for event in drafts[:1]]


def _message(event: spans.Event, role: str) -> Message:
    said: dict[str, Any] = {"role": role, **event.attributes}
    for name in ("gen_ai.event.content", "message"):
        inner = parsed(cells.at(said, name))
        if inner is not None:
            said |= inner if isinstance(inner, Mapping) else {"content": inner}
    return messages.message(said)


LAYOUT = Layout(
    SourceKind.OTEL,
    title="OpenTelemetry gen_ai: spans and log records, as OTLP or as SDKs print them",
    needs="spans or log records with attributes or events gen_ai.*, bare or in resourceSpans and resourceLogs",
    fits=_fits,
    read=_read,
    assembly=Assembly.SESSION,
)
