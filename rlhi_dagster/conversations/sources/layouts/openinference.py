"""OpenInference: spans as Phoenix and others keep them, and Phoenix's annotations of them.

What belongs here: what OpenInference's attributes mean, and annotations. What does not: what any span says (``layouts.otel``), and how
spans are written (``sources.spans``).

A request is a span of the kind LLM, with its whole history. Spans of chains, agents and tools repeat what the requests below them say, and
are not read; feedback on one of them is on the last reply below it, feedback on a trace on the last reply of the trace.

What it lacks: edits of replies are explanations of annotations at best. A person's annotation is the end user's, unless it was given in
Phoenix's own interface (source ``APP``): then it is the staff's. What models and programs annotate counts as a model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rlhi_dagster.conversations.sources import cells, scores, spans, traces
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed
from rlhi_dagster.conversations.sources.layouts import exchanges, messages, otel
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, Giver, Layout, Message, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceKind, SourceSettings

_KIND = "openinference.span.kind"
_ASKED, _ANSWERED = "llm.input_messages", "llm.output_messages"
_SUBJECTS = ("span_id", "trace_id", "session_id")
_RESULT = ("label", "score", "explanation")


def _fits(row: Mapping[str, Any]) -> bool:
    if _is_annotation(row):
        return True
    attributes = spans.attributes(row)
    is_phoenix = "span_kind" in row and spans.span(row) is not None
    return is_phoenix or any(cells.at(attributes, name) is not None for name in (_KIND, _ASKED, _ANSWERED))


def _is_annotation(row: Mapping[str, Any]) -> bool:
    return "annotator_kind" in row and any(name in row for name in _SUBJECTS)


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    if _is_annotation(row):
        return _annotation(row, settings)
    attributes = spans.attributes(row)
    if "gen_ai" in attributes and cells.at(attributes, _KIND) is None and "span_kind" not in row:  # of another library in the same program
        return otel.LAYOUT.read(row, settings, place)
    found = otel.record(row, attributes, settings)
    kind = str(cells.at(attributes, _KIND) or row.get("span_kind") or "").upper()
    has_messages = any(cells.at(attributes, name) is not None for name in (_ASKED, _ANSWERED))
    if kind in ("", "UNKNOWN", "NAN"):
        kind = "LLM" if has_messages else ""
    about = row if kind == "LLM" else spans.linked(row) or row
    subjects = {"": spans.span(about), "trace.": spans.trace(about) or found.request, "session.": found.group}
    found.feedback = [*_annotations(attributes, subjects, found.started_at, settings), *otel.evaluations(row, subjects[""], settings)]
    if kind != "LLM":
        found.note = otel.SPAN if not kind else otel.SCORE if kind == "EVALUATOR" else traces.STEP
        return found
    asked = _messages(attributes, _ASKED) or exchanges.asked(cells.at(attributes, "input.value"))
    answered = _messages(attributes, _ANSWERED) or exchanges.answered(cells.at(attributes, "output.value"))
    drafts = cells.at(attributes, "llm.invocation_parameters.n")
    answered = answered[:1] if isinstance(drafts, int) and drafts > 1 else answered
    name, times = found.step or found.request, (found.started_at, otel.answered_at(row) or found.started_at)
    found.messages = otel.dialogue(asked, answered, name, *times) or None
    return found


def _messages(attributes: spans.Tree, name: str) -> list[Message]:
    """The messages of an attribute."""
    given = parsed(cells.at(attributes, name))
    if given is not None and not isinstance(given, list):
        raise MistypedError(f"{name}: no list")
    return [_message(each, f"{name}.{number}") for number, each in enumerate(given or [])]


def _message(value: Any, name: str) -> Message:
    said = _inner(value, "message")
    if not isinstance(said, Mapping):
        raise MistypedError(f"{name}: no message")
    found = {each: said.get(each) for each in ("role", "content", "name")}
    contents, calls = parsed(said.get("contents")), parsed(said.get("tool_calls"))
    if isinstance(contents, list) and contents:
        found["content"] = [_inner(each, "message_content") for each in contents]
    if isinstance(calls, list):
        found["tool_calls"] = [_inner(each, "tool_call") for each in calls]
    return messages.message(found)


def _inner(value: Any, name: str) -> Any:
    """What is wrapped in an object of one field, which may be written into the keys."""
    value = parsed(value)
    value = spans.tree(value) if isinstance(value, Mapping) else value
    return value[name] if isinstance(value, Mapping) and isinstance(value.get(name), Mapping) else value


def _annotations(
    attributes: spans.Tree, subjects: Mapping[str, str | None], given_at: datetime | None, settings: SourceSettings
) -> Iterable[Feedback]:
    """Annotations that a span carries, of what the prefixes of their names say."""
    for prefix, subject in subjects.items():
        for many, one in (("annotations", "annotation"), ("evaluations", "evaluation")):
            given = parsed(cells.at(attributes, f"{prefix}{many}"))
            for each in given if isinstance(given, list) else []:
                said = _inner(each, one)
                if isinstance(said, Mapping):
                    yield from _given(said, subject, settings, given_at)


def _annotation(row: Mapping[str, Any], settings: SourceSettings) -> Record:
    """An annotation that Phoenix keeps in a table of its own; one of a document is on no reply."""
    try:
        given_at = cells.time(row.get("created_at"))
    except MistypedError as error:
        raise MistypedError(f"created_at: {error}") from None
    subject = spans.span(row) or spans.trace(row) or messages.shared_key(row, "session_id")
    result = {name: cells.at(row, f"result.{name}") for name in _RESULT if cells.at(row, f"result.{name}") is not None}
    said = {**row, **result, "name": row.get("name") or row.get("annotation_name")}
    feedback = _given(said, subject, settings, given_at) if row.get("document_position") is None else []
    return Record(started_at=given_at, feedback=feedback, note=otel.SCORE)


def _given(said: Mapping[str, Any], subject: str | None, settings: SourceSettings, given_at: datetime | None) -> list[Feedback]:
    is_person = str(said.get("annotator_kind")).upper() == "HUMAN"
    giver = Giver.MODEL if not is_person else Giver.STAFF if said.get("source") == "APP" else Giver.END_USER
    label, comment = (messages.shared_key(said, name) for name in ("label", "explanation"))
    name = str(said.get("name"))
    return scores.given(name, said.get("score"), settings, target=subject, giver=giver, label=label, comment=comment, given_at=given_at)


LAYOUT = Layout(
    SourceKind.OPENINFERENCE,
    title="OpenInference: spans of Phoenix and others, by REST, as data frames or as OTLP, and Phoenix's annotations",
    needs="spans with openinference.span.kind, or span_kind and context.span_id; annotator_kind and span_id (annotations)",
    fits=_fits,
    read=_read,
    assembly=Assembly.SESSION,
)
