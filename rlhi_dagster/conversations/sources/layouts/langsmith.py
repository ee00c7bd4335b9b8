"""LangSmith: runs, as the SDK lists them or the bulk export writes them to Parquet, and feedback on them.

What belongs here: which run is an exchange with the user, and whom feedback is from. What does not: the JSON in ``inputs`` and ``outputs``
(``layouts.exchanges``), and which feedback keys are thumbs (``scores``).

A trace is one request: its root run is kept, or the model's run within it if the root's inputs and outputs are no dialogue. A conversation
is what the application says in ``extra.metadata``: ``session_id``, ``thread_id`` or ``conversation_id``; the column ``session_id`` is the
project.

What LangSmith lacks: a user of its own (by custom in ``metadata.user_id``). Feedback is not in the bulk export and comes by the SDK. A root
run does not name the model; the model's runs do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources import cells, scores
from rlhi_dagster.conversations.sources.cells import parsed
from rlhi_dagster.conversations.sources.layouts import exchanges, messages
from rlhi_dagster.conversations.sources.records import Assembly, Feedback, FeedbackKind, Giver, Layout, Place, Record
from rlhi_dagster.conversations.sources.settings import SourceField, SourceKind, SourceSettings

_THREAD = ("session_id", "thread_id", "conversation_id")
_MODEL = (
    "extra.metadata.ls_model_name", "extra.invocation_params.model", "extra.invocation_params.model_name", "outputs.model",
    "outputs.llm_output.model_name",
)  # fmt: skip
_GIVERS = {"api": Giver.END_USER, "app": Giver.END_USER}
"""By ``feedback_source.type``; every other source, such as ``evaluator`` and ``model``, is a model."""
_STEPS = {"tool", "retriever", "embedding", "parser"}
"""Runs that are no exchange with anybody, whatever their place."""
_SAYS = {"score", "value", "comment", "correction"}


def _is_run(row: Mapping[str, Any]) -> bool:
    return {"run_type", "inputs"} <= row.keys() and not row.keys().isdisjoint(("id", "trace_id", "dotted_order", "start_time"))


def _is_feedback(row: Mapping[str, Any]) -> bool:
    has = {"run_id", "key"} <= row.keys() and not row.keys().isdisjoint(_SAYS)
    return has and ("feedback_source" in row or len(row.keys() & _SAYS) > 1)


def _read(row: Mapping[str, Any], settings: SourceSettings, place: Place) -> Record:
    del place
    if not _is_run(row) and _is_feedback(row):
        return Record(started_at=messages.time_at(row, "created_at"), feedback=_feedback(row, settings), note="feedback on a run")
    metadata = cells.at(row, "extra.metadata") or parsed(row.get("metadata"))
    metadata = metadata if isinstance(metadata, Mapping) else {}
    thread = next((found for name in _THREAD if (found := messages.shared_key(metadata, name))), None)
    name = messages.shared_key(row, "id")
    asked_at = messages.time_at(row, "start_time")
    usual = {"created": asked_at, "model": next((found for path in _MODEL if (found := messages.shared_key(row, path))), None)}
    record = messages.fields({**row, "metadata": metadata, **{each: value for each, value in usual.items() if value is not None}}, settings)
    record.request = messages.shared_key(row, "trace_id") or name
    if SourceField.CONVERSATION_ID not in settings.fields:
        record.conversation_id, record.group = thread or record.request, thread
    else:
        record.group = record.conversation_id
    kind, is_within = str(row.get("run_type")).lower(), messages.shared_key(row, "parent_run_id") is not None
    if kind in _STEPS or (is_within and kind != "llm"):
        record.note = f"a step of a run ({kind})"
        return record
    record.depth = int(is_within)
    record.messages = exchanges.dialogue(row.get("inputs"), row.get("outputs"), name, asked_at, messages.time_at(row, "end_time"))
    return record


def _feedback(row: Mapping[str, Any], settings: SourceSettings) -> list[Feedback]:
    """What a row of feedback says: a score, a comment, and the reply as it should be; of replies that were compared, the rank."""
    trace = messages.shared_key(row, "trace_id")
    target = messages.shared_key(row, "run_id") or trace
    if target is None:
        return []
    source = parsed(row.get("feedback_source"))
    kind = source.get("type") if isinstance(source, Mapping) else source
    giver = _GIVERS.get(str(kind or "api").lower(), Giver.MODEL)
    given_at, comment = messages.time_at(row, "created_at"), messages.shared_key(row, "comment")
    value = row.get("score") if row.get("score") is not None else row.get("value")
    pair = messages.shared_key(row, "feedback_group_id")
    given = scores.given(str(row["key"]), value, settings, target=target, giver=giver, comment=comment, given_at=given_at, request=trace)
    if pair is not None:
        given = [each._replace(kind=FeedbackKind.CHOICE, pair=pair) for each in given if each.value is not None]
    edit = "\n".join(message.text for message in exchanges.answered(row.get("correction"))).strip()
    return given + ([Feedback(target, FeedbackKind.EDIT, None, edit, given_at, giver, trace)] if edit else [])


LAYOUT = Layout(
    SourceKind.LANGSMITH,
    title="LangSmith: runs (SDK, bulk export to Parquet) and feedback",
    needs="run_type, inputs, outputs (runs); run_id, key, score, feedback_source (feedback)",
    fits=lambda row: _is_run(row) or _is_feedback(row),
    read=_read,
    assembly=Assembly.SESSION,
)
