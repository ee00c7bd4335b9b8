"""Langfuse: traces, observations and scores, as tables are exported, as blob storage files are written and as the API pages them.

What belongs here: which of its rows is what, and what scores say. What does not: the JSON that traces keep requests and replies in
(``layouts.exchanges``), and which scores are thumbs (``scores``).

A trace is one request; of its rows that say the same, the trace, else the outermost observation, is kept. A session is a conversation.

What Langfuse lacks: the user and the session are there if the application sets them, of older observations only in the file of traces. A
trace does not name the model; its observations do. Corrections (edits) come by the API only. The columns of scores in a table export do not
say who gave a score: those that the setting `thumbs` names are the end users', all others count as a model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rlhi_dagster.conversations.sources import scores
from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.layouts import exchanges, messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Giver, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_GIVERS = {"API": Giver.END_USER, "ANNOTATION": Giver.STAFF, "EVAL": Giver.MODEL}
_ABOUT = {"trace_id", "observation_id", "session_id", "dataset_run_id", "subject"}
_OF_TRACES = {"name", "user_id", "session_id", "release", "version", "environment", "tags", "bookmarked", "public", "metadata", "comments"}
_OF_OBSERVATIONS = {
    "level", "status_message", "parent_observation_id", "model_parameters", "usage_details", "provided_model_name", "prompt_name",
    "completion_start_time",
}  # fmt: skip
_STEPS = {"TOOL", "RETRIEVER", "EMBEDDING", "EVALUATOR", "GUARDRAIL", "EVENT"}
"""Observations that are no exchange with anybody, whatever their place."""
_LISTS = {"tags", "comments", "scores", "observations"}
"""Columns that hold a list and are no score."""


def _names(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row under the names of blob storage; tables and the API have them with capitals."""
    return {re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: f"_{found[0]}", name).lower(): value for name, value in row.items()}


def _is_score(named: Mapping[str, Any]) -> bool:
    has = {"name", "source"} <= named.keys() and not named.keys().isdisjoint(("value", "string_value"))
    return has and str(named["source"]) in _GIVERS and not named.keys().isdisjoint(_ABOUT | {"data_type"})


def _is_observation(named: Mapping[str, Any]) -> bool:
    return {"id", "trace_id", "type", "start_time"} <= named.keys() and not named.keys().isdisjoint(_OF_OBSERVATIONS | {"input", "output"})


def _is_trace(named: Mapping[str, Any]) -> bool:
    return {"id", "timestamp", "input", "output"} <= named.keys() and len(named.keys() & _OF_TRACES) > 2


def _fits(row: Mapping[str, Any]) -> bool:
    named = _names(row)
    return _is_score(named) or _is_observation(named) or _is_trace(named)


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    del place
    named = _names(row)
    if _is_score(named):
        return Record(started_at=messages.time_at(named, "timestamp"), feedback=_score(named, settings), note="a score")
    if "count_traces" in named:
        return Record(started_at=messages.time_at(named, "created_at"), note="a session's counts")
    is_observation = _is_observation(named)
    name = messages.shared_key(named, "id")
    trace = messages.shared_key(named, "trace_id") if is_observation else name
    session = messages.shared_key(named, "session_id")
    asked_at = messages.time_at(named, "start_time" if is_observation else "timestamp")
    model = next((each for each in ("provided_model_name", "model") if messages.shared_key(named, each)), None)
    usual = {"user": named.get("user_id"), "created": asked_at, "model": model and named[model]}
    told = {each: value for each, value in {**named, **row}.items() if not isinstance(value, list)}  # a list is a score, whatever its name
    record = messages.fields({**told, **{each: value for each, value in usual.items() if value is not None}}, settings)
    if SourceField.CONVERSATION_ID not in settings.fields:
        record.conversation_id, record.group = session or trace, session
    else:
        record.group = record.conversation_id
    record.request = trace
    record.feedback = [*_columns(row, name, settings), *_within(named, settings)]
    kind, is_within = str(named.get("type")).upper(), is_observation and messages.shared_key(named, "parent_observation_id") is not None
    if is_observation and (kind in _STEPS or (is_within and kind != "GENERATION")):
        record.note = f"a step of a trace ({kind.lower()})"
        return record
    record.depth = is_observation + is_within
    record.messages = exchanges.dialogue(named.get("input"), named.get("output"), name, asked_at, messages.time_at(named, "end_time"))
    return record


def _score(named: Mapping[str, Any], settings: SourceSettings) -> list[Feedback]:
    """What a score says; one of a whole session, or of a run over a data set, is on no reply."""
    subject = parsed(named.get("subject"))
    on = {**_names(subject), f"{subject.get('kind')}_id": subject.get("id")} if isinstance(subject, Mapping) else named
    trace = messages.shared_key(on, "trace_id")
    target = messages.shared_key(on, "observation_id") or trace
    if target is None:
        return []
    kind = str(named.get("data_type")).upper()
    value, text = named.get("value"), named.get("string_value")
    value = value if value is not None and (kind in ("NUMERIC", "BOOLEAN") or not text) else text
    comment = messages.shared_key(named, "comment")
    given_at, giver = messages.time_at(named, "timestamp"), _GIVERS[str(named["source"])]
    if kind == "CORRECTION":
        edit = "\n".join(message.text for message in exchanges.answered(value)).strip()
        return [Feedback(target, FeedbackKind.EDIT, None, edit, given_at, giver, trace)] if edit else []
    return scores.given(str(named["name"]), value, settings, target=target, giver=giver, comment=comment, given_at=given_at, request=trace)


def _within(named: Mapping[str, Any], settings: SourceSettings) -> Iterable[Feedback]:
    """Scores and comments that a trace or an observation has within it."""
    for name in ("scores", "comments"):
        found = parsed(named.get(name))
        for each in found if isinstance(found, list) else []:
            inner = _names(each) if isinstance(each, Mapping) else {}
            if name == "scores" and _is_score(inner):
                yield from _score({"trace_id": named.get("id"), **inner}, settings)
            elif name == "comments" and (text := messages.shared_key(inner, "content")):
                yield Feedback(
                    messages.shared_key(named, "id"), FeedbackKind.COMMENT, None, text, messages.time_at(inner, "created_at"), Giver.STAFF
                )


def _columns(row: Mapping[str, Any], target: str | None, settings: SourceSettings) -> Iterable[Feedback]:
    """The scores of a table export: a column each, with a list."""
    for name, value in row.items():
        values = parsed(value) if name not in _LISTS else None
        for each in values if isinstance(values, list) and name not in ("input", "output", "metadata") else []:
            if isinstance(each, str | int | float):
                giver = Giver.END_USER if scores.is_thumb(name, settings) else Giver.MODEL
                yield from scores.given(name, each, settings, target=target, giver=giver)


LAYOUT = Layout(
    SourceKind.LANGFUSE,
    title="Langfuse: exported tables of traces or observations, blob storage files, pages of the API",
    needs="id, timestamp, input, output, userId (traces); id, traceId, type, startTime (observations); name, value, source (scores)",
    fits=_fits,
    read=_read,
    assembly=Assembly.SESSION,
)
