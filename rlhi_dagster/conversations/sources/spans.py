"""Spans and log records of OpenTelemetry, whichever exporter wrote them.

What belongs here: the envelopes of OTLP, and the attributes, events, names and times of a row in all their spellings. What does not: what
the attributes of a convention mean (``layouts.otel``, ``layouts.openinference``).

Attributes are lists of keys with typed values (OTLP), one object (SDKs, Phoenix) or columns of a data frame (``attributes.user.id``), and
lists within them are nested or written into the keys (``llm.input_messages.0.message.role``). Here they are always a tree of objects and
lists, for `cells.at`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rlhi_dagster.conversations.sources import cells
from rlhi_dagster.conversations.sources.cells import MistypedError, parsed

Tree = Mapping[str, Any]

_ENVELOPES = {
    "resourceSpans": (("scopeSpans", "instrumentationLibrarySpans"), ("spans",)),
    "resource_spans": (("scope_spans", "instrumentation_library_spans"), ("spans",)),
    "resourceLogs": (("scopeLogs", "instrumentationLibraryLogs"), ("logRecords",)),
    "resource_logs": (("scope_logs", "instrumentation_library_logs"), ("log_records",)),
}
"""Names in the envelopes of OTLP: of the resources, of the scopes within one, and of the rows within a scope."""
_ATTRIBUTES = ("attributes", "SpanAttributes", "LogAttributes")
_ARRAY, _OBJECT = ("arrayValue", "array_value"), ("kvlistValue", "kvlist_value")
_TYPED = {f"{kind}{end}" for kind in ("string", "int", "double", "bool", "bytes") for end in ("Value", "_value")} | {*_ARRAY, *_OBJECT}
_TRACE = ("traceId", "trace_id", "context.trace_id", "TraceId", "traceID")
_SPAN = ("spanId", "span_id", "context.span_id", "SpanId", "spanID")
_PARENT = ("parentSpanId", "parent_span_id", "parent_id", "parentId", "ParentSpanId")
_AT = ("timeUnixNano", "time_unix_nano", "timestamp", "Timestamp", "observedTimeUnixNano", "observed_time_unix_nano", "observed_timestamp")
_STARTED = ("startTimeUnixNano", "start_time_unix_nano", "start_time", "startTime", *_AT)
_ENDED = ("endTimeUnixNano", "end_time_unix_nano", "end_time", "endTime")
_DEEPEST = 20
_HIDDEN = "__REDACTED__"
"""What OpenInference writes in place of what its settings hide."""


class Event(NamedTuple):
    """What a span, or a log record, says under a name."""

    name: str
    attributes: Tree
    at: Any


def unwrapped(value: Any) -> Iterator[Any]:
    """The spans and log records in an envelope of OTLP, each with its resource; any other value as it is."""
    envelopes = [name for name in _ENVELOPES if isinstance(value, Mapping) and isinstance(value.get(name), list)]
    if not envelopes:
        yield value
    for name in envelopes:
        for resource in value[name]:
            of = {"resource": resource.get("resource")} if isinstance(resource, Mapping) else {}
            for row in _within(resource, _ENVELOPES[name]):
                yield {**row, **of} if isinstance(row, Mapping) else row


def _within(value: Any, names: tuple[tuple[str, ...], ...]) -> Iterator[Any]:
    """The rows below; what should have rows and is something else, as it is."""
    if not names or not isinstance(value, Mapping):
        yield value
        return
    for name in names[0]:
        if isinstance(value.get(name), list):
            for each in value[name]:
                yield from _within(each, names[1:])
        elif value.get(name) is not None:
            yield value


def attributes(row: Tree, more: Any = None) -> Tree:
    """The attributes of a row, and ``more`` of them, as a tree."""
    found: dict[str, Any] = {}
    for name in _ATTRIBUTES:
        found |= _pairs(row.get(name))
    found |= {name.removeprefix("attributes."): value for name, value in row.items() if "." in name}
    return tree(found | _pairs(more))


def resource(row: Tree) -> Tree:
    """The attributes of the resource that a row is of."""
    given = parsed(row.get("resource"))
    return tree(_pairs(given.get("attributes") if isinstance(given, Mapping) else row.get("ResourceAttributes")))


def body(row: Tree) -> Any:
    """The body of a log record."""
    return parsed(_typed(row.get("body", row.get("Body"))))


def event_name(row: Tree) -> str | None:
    """The name of the event that a log record is; None for a span, and for a log record without one."""
    if any(name in row for name in _ENDED):
        return None
    found = (row.get(name) for name in ("eventName", "event_name", "EventName"))
    return next((name for name in (*found, cells.at(attributes(row), "event.name")) if isinstance(name, str) and name), None)


def is_log(row: Tree) -> bool:
    """Whether a row is a log record."""
    return "body" in row or "Body" in row or event_name(row) is not None


def events(row: Tree) -> list[Event]:
    """The events on a span, or the one that a log record is."""
    own = event_name(row)
    if own is not None:
        said = body(row)
        return [Event(own, attributes(row, said if isinstance(said, Mapping) else {"content": said}), started_at(row))]
    found = [each for each in _listed(parsed(row.get("events"))) if isinstance(each, Mapping)]
    return [Event(str(each.get("name")), attributes(each), _first(each, _AT)) for each in found]


def trace(row: Tree) -> str | None:
    """Name of the trace of a row."""
    return _name(row, _TRACE)


def span(row: Tree) -> str | None:
    """Name of a span, or of the one that a log record or an annotation is about."""
    return _name(row, _SPAN)


def parent(row: Tree) -> str | None:
    """Name of the span that a span was part of."""
    return _name(row, _PARENT)


def linked(row: Tree) -> Tree | None:
    """The one link of a span that carries what is said of another."""
    links = [link for link in _listed(parsed(row.get("links"))) if isinstance(link, Mapping)]
    return links[0] if len(links) == 1 else None


def started_at(row: Tree) -> Any:
    """When a span began or a log record was made, as the row has it."""
    return _first(row, _STARTED)


def ended_at(row: Tree) -> Any:
    """When a span ended, as the row has it."""
    return _first(row, _ENDED)


def tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Objects and lists of what is written into keys, as in ``messages.0.role``; what is nested already stays as it is."""
    root = _Made()
    for path, value in flat.items():
        if value is None or value == _HIDDEN or (isinstance(value, float) and math.isnan(value)):
            continue
        *above, last = str(path).split(".", _DEEPEST)
        node = root
        for name in above:
            below = node.get(name)
            if type(below) is not _Made:
                below = node[name] = _Made(below if isinstance(below, Mapping) else {})
            node = below
        if type(node.get(last)) is not _Made:
            node[last] = value
        elif isinstance(value, Mapping):
            node[last] = _Made({**value, **node[last]})
    return {name: _with_lists(value) for name, value in root.items()}


class _Made(dict[str, Any]):
    """An object that `tree` has made of keys."""


def _with_lists(value: Any) -> Any:
    if type(value) is not _Made:
        return value
    inner = {name: _with_lists(each) for name, each in value.items()}
    return [inner[name] for name in sorted(inner, key=int)] if inner and all(name.isdecimal() for name in inner) else inner


def _pairs(value: Any) -> dict[str, Any]:
    """Keys and values of attributes."""
    value = parsed(value)
    if isinstance(value, Mapping):
        return {str(name): _typed(each) for name, each in value.items()}
    found = {}
    for each in _listed(value):
        if isinstance(each, Mapping) and isinstance(each.get("key"), str):
            found[each["key"]] = _typed(each.get("value"))
        elif isinstance(each, tuple) and len(each) == 2:  # a map of Parquet
            found[str(each[0])] = _typed(each[1])
    return found


def _typed(value: Any) -> Any:
    """A value that may be written with its type, as ``{"stringValue": …}``."""
    if not isinstance(value, dict) or not value.keys() <= _TYPED:
        return value
    for name, inner in value.items():
        if inner is not None:
            values = inner.get("values") if isinstance(inner, dict) else None
            return [_typed(each) for each in _listed(values)] if name in _ARRAY else _pairs(values) if name in _OBJECT else inner
    return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _name(row: Tree, names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            found = cells.key(cells.at(row, name))
        except MistypedError:
            continue
        if found is not None and found.removeprefix("0x").strip("0"):
            return found.removeprefix("0x").lower()
    return None


def _first(row: Tree, names: tuple[str, ...]) -> Any:
    """The first that there is; zero stands for no time."""
    return next((row[name] for name in names if row.get(name) not in (None, 0, "0", "")), None)
