"""Spans and log records of OpenTelemetry's gen_ai conventions, by every exporter that people have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings, detect_kind, month_counts, spans

NOW = datetime(2027, 1, 1, tzinfo=UTC)
START = datetime(2026, 6, 1, tzinfo=UTC)
EPOCH = 1_790_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def lines(*rows: Any, name: str = "a.jsonl") -> Path:
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))
        return tmp_path / name

    return lines


def settings(location: Path, kind: SourceKind = SourceKind.OTEL, **changes: Any) -> SourceSettings:
    return SourceSettings(name="s", kind=kind, location=str(location), assumed_start=START, **changes)


def run(location: Path, kind: SourceKind = SourceKind.OTEL, **changes: Any) -> tuple[Ingested, pl.DataFrame]:
    """What becomes of the rows, none of which may be lost, and the feedback."""
    assert detect_kind(str(location)) is kind
    source = settings(location, kind, **changes)
    found = ingest(source, list(month_counts(source, now=NOW)), "salt", now=NOW)
    assert sum(found.rows_in.values()) == len(found.conversations) + len(found.quarantine) + len(found.superseded)
    rows = SourceRows(source, now=NOW)
    return found, rows.feedback().collect()


def talks(found: Ingested) -> dict[str, list[tuple[str, str]]]:
    return {
        row["conversation_id"]: [(message["role"], message["content"]) for message in row["messages"]]
        for row in found.conversations.iter_rows(named=True)
    }


def value(given: Any) -> dict[str, Any]:
    """A value as OTLP writes it."""
    if isinstance(given, dict):
        return {"kvlistValue": {"values": attributes(given)}}
    if isinstance(given, list):
        return {"arrayValue": {"values": [value(each) for each in given]}}
    name = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}[type(given)]
    return {name: str(given) if name == "intValue" else given}


def attributes(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": value(each)} for name, each in given.items()]


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def span(step: str, at: int, given: dict[str, Any], *, trace: str = TRACE, parent: str = "", events: Sequence[Any] = ()) -> dict[str, Any]:
    return {
        "traceId": trace,
        "spanId": step,
        "parentSpanId": parent,
        "name": "chat m",
        "kind": 3,
        "startTimeUnixNano": f"{EPOCH + at}000000000",
        "endTimeUnixNano": f"{EPOCH + at + 2}000000000",
        "attributes": attributes(given),
        "events": [{"name": name, "timeUnixNano": f"{EPOCH + at}000000001", "attributes": attributes(each)} for name, each in events],
    }


def log(
    name: str, at: float, body: Any = None, given: dict[str, Any] | None = None, *, step: str = "a1", trace: str = TRACE
) -> dict[str, Any]:
    return {
        "timeUnixNano": f"{round((EPOCH + at) * 1000)}000000",
        "eventName": name,
        "body": value(body) if body is not None else None,
        "attributes": attributes(given or {}),
        "traceId": trace,
        "spanId": step,
    }


def envelope(*rows: dict[str, Any], **resource: str) -> dict[str, Any]:
    is_log = "eventName" in rows[0]
    names = ("resourceLogs", "scopeLogs", "logRecords") if is_log else ("resourceSpans", "scopeSpans", "spans")
    of = {"attributes": attributes({"service.name": "shop", **resource})}
    return {names[0]: [{"resource": of, names[1]: [{"scope": {"name": "x"}, names[2]: list(rows)}]}]}


CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.response.model": "m-1"}
FIRST = [("user", "name three plums"), ("assistant", "damson, greengage, mirabelle")]
SECOND = [*FIRST, ("user", "only red ones"), ("assistant", "damson")]


def request(talk: list[tuple[str, str]], *, as_text: bool = False, **more: Any) -> dict[str, Any]:
    *asked, answered = [said(*each) for each in talk]
    both = {"gen_ai.input.messages": asked, "gen_ai.output.messages": [{**answered, "finish_reason": "stop"}]}
    return {**CHAT, **{name: json.dumps(each) if as_text else each for name, each in both.items()}, **more}


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(EPOCH + seconds, UTC)


@pytest.mark.parametrize("as_text", [False, True])
def test_spans_of_a_growing_history_are_one_conversation(as_text: bool, write: Callable[..., Path]) -> None:
    known = {"gen_ai.conversation.id": "c-1", "user.id": "u-1"}
    rows = [
        span("a1", 0, request(FIRST, as_text=as_text, **known)),
        span(
            "a2", 60, request(SECOND, as_text=as_text, **{**known, "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}]})
        ),
    ]
    found, feedback = run(write(envelope(*rows)))
    assert talks(found) == {"c-1": SECOND}
    assert [message["sent_at"] for message in found.conversations["messages"][0]] == [at(0), at(2), at(60), at(62)]
    assert found.conversations.select("assistant", "started_at").row(0) == ("m-1", at(0))
    assert found.superseded["row_number"].to_list() == [0]
    assert feedback.is_empty()
    source = SourceRows(settings(write(envelope(*rows))), now=NOW).collect(lambda rows: rows)
    assert source["user_key"].to_list() == ["u-1", "u-1"]
    kept = source.filter(pl.col("superseded").is_null())["messages"][0]
    assert [message["id"] for message in kept if message["role"] == "assistant"] == ["a1", "a2"]


def test_user_and_conversation_are_those_that_any_row_of_the_trace_names(write: Callable[..., Path]) -> None:
    other = "5bf92f3577b34da6a3ce929d0e0e4736"
    path = write(
        envelope(span("f1", 0, {"http.route": "/chat", "user.id": "u-1", "session.id": "s-1"}), span("a1", 1, request(FIRST), parent="f1")),
        envelope(span("f2", 60, {"http.route": "/chat", "enduser.id": "u-1"}, trace=other)),
        envelope(span("a2", 61, request(SECOND, **{"session.id": "s-1"}), parent="f2", trace=other)),
    )
    found, _ = run(path)
    assert talks(found) == {"s-1": SECOND}
    assert SourceRows(settings(path), now=NOW).collect(lambda rows: rows)["user_key"].to_list().count("u-1") == 4
    assert sorted(found.superseded["cause"].unique()) == ["a later row repeats and continues it", "a span of something else"]


def test_agents_and_tools_are_not_counted_beside_the_requests_below_them(write: Callable[..., Path]) -> None:
    call = {"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "shop", "arguments": {"a": 1}}]}
    result = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "damson"}]}
    asked = said("user", "what is left?")
    rows = [
        span("f1", 0, request([("user", "what is left?"), ("assistant", "damsons")]) | {"gen_ai.operation.name": "invoke_agent"}),
        span("a1", 1, CHAT | {"gen_ai.input.messages": [asked], "gen_ai.output.messages": [call]}, parent="f1"),
        span("f2", 3, {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "shop"}, parent="f1"),
        span(
            "a2",
            5,
            CHAT | {"gen_ai.input.messages": [asked, call, result], "gen_ai.output.messages": [said("assistant", "damsons")]},
            parent="f1",
            events=[("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "grounded", "gen_ai.evaluation.score.value": 0.5})],
        ),
        span("a3", 9, {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e"}, parent="f1"),
    ]
    found, feedback = run(write(envelope(*rows)))
    assert talks(found) == {"a2": [("user", "what is left?"), ("assistant", "[tool call: shop]\n\n[tool result]\n\ndamsons")]}
    assert len(found.superseded) == 4
    assert feedback.select("target", "kind", "value", "giver").rows() == [("a2", "rating", 0.5, "model")]


def test_events_of_older_emitters_are_joined_by_their_span(write: Callable[..., Path]) -> None:
    history = [
        log("gen_ai.system.message", 60.0, {"content": "be brief"}, step="a2"),
        log("gen_ai.user.message", 60.001, {"content": FIRST[0][1]}, step="a2"),
        log("gen_ai.assistant.message", 60.002, {"content": FIRST[1][1]}, step="a2"),
        log("gen_ai.user.message", 60.003, {"content": "only red ones"}, step="a2"),
        log("gen_ai.choice", 62, {"index": 0, "finish_reason": "stop", "message": {"content": "damson", "role": "assistant"}}, step="a2"),
        log("gen_ai.choice", 62, {"index": 1, "finish_reason": "stop", "message": {"content": "plums", "role": "assistant"}}, step="a2"),
    ]
    first = [
        log("gen_ai.user.message", 0, {"content": FIRST[0][1]}),
        log("gen_ai.choice", 2, {"index": 0, "message": {"content": FIRST[1][1]}}),
        log("http.request", 0, "GET"),
    ]
    write(envelope(*first), envelope(*reversed(history)))
    path = write(envelope(span("a1", 0, CHAT | {"session.id": "s"}), span("a2", 60, CHAT | {"session.id": "s"})), name="b.jsonl").parent
    found, _ = run(path)
    assert talks(found) == {"s": SECOND}
    assert [message["sent_at"] for message in found.conversations["messages"][0]] == [at(0), at(2), at(60.003), at(62)]
    assert found.conversations["assistant"].to_list() == ["m-1"]
    assert len(found.superseded) == 10
    assert found.quarantine.is_empty()


def test_events_without_spans_are_requests_by_their_trace(write: Callable[..., Path]) -> None:
    rows = [log("gen_ai.user.message", 0, {"content": "a"}, step=""), log("gen_ai.choice", 1, {"message": {"content": "b"}}, step="")]
    found, _ = run(write(envelope(*rows)), assumed_model="m")
    assert talks(found) == {TRACE: [("user", "a"), ("assistant", "b")]}
    rows = [span("a1", 0, CHAT), *rows]
    found, _ = run(write(envelope(rows[0]), envelope(*rows[1:])))
    assert talks(found) == {"a1": [("user", "a"), ("assistant", "b")]}


@pytest.mark.parametrize(
    "events",
    [
        [("gen_ai.user.message", {"content": "a"}), ("gen_ai.choice", {"index": 0, "message": '{"content": "b", "role": "assistant"}'})],
        [
            ("gen_ai.user.message", {"gen_ai.event.content": '{"role": "user", "content": "a"}'}),
            ("gen_ai.choice", {"gen_ai.event.content": '{"index": 0, "message": {"content": "b"}}'}),
        ],
        [
            ("gen_ai.content.prompt", {"gen_ai.prompt": '[{"role": "user", "content": "a"}]'}),
            ("gen_ai.content.completion", {"gen_ai.completion": '[{"role": "assistant", "content": "b"}]'}),
        ],
        [
            ("gen_ai.client.inference.operation.details", {"gen_ai.input.messages": [said("user", "a")]}),
            ("gen_ai.client.inference.operation.details", {"gen_ai.output.messages": [said("assistant", "b"), said("assistant", "c")]}),
        ],
    ],
)
def test_messages_among_the_events_of_a_span(events: list[Any], write: Callable[..., Path]) -> None:
    found, _ = run(write(envelope(span("a1", 0, CHAT, events=events))))
    assert talks(found) == {"a1": [("user", "a"), ("assistant", "b")]}


def test_details_in_a_log_record_and_on_the_span_are_one_request(write: Callable[..., Path]) -> None:
    details = log("gen_ai.client.inference.operation.details", 2, None, request(FIRST, **{"gen_ai.conversation.id": "c", "user.id": "u"}))
    path = write(envelope(span("a1", 0, request(FIRST, as_text=True))), envelope(details))
    found, _ = run(path)
    assert talks(found) == {"c": FIRST}
    assert found.superseded["cause"].to_list() == ["another row of the same request"]
    # Without the text on the span, and without the span.
    assert talks(run(write(envelope(span("a1", 0, CHAT)), envelope(details)))[0]) == {"c": FIRST}
    assert talks(run(write(envelope(details)))[0]) == {"c": FIRST}


def test_evaluations_are_of_a_judge_and_find_the_reply(write: Callable[..., Path]) -> None:
    judged = {"gen_ai.evaluation.name": "fair", "gen_ai.evaluation.explanation": "dull"}
    path = write(
        envelope(
            span("f1", 0, {"gen_ai.operation.name": "invoke_agent"}),
            span("a1", 1, request(FIRST, **{"gen_ai.response.id": "r-1"}), parent="f1"),
        ),
        envelope(
            log("gen_ai.evaluation.result", 9, None, judged | {"gen_ai.evaluation.score.value": 0.25, "gen_ai.response.id": "r-1"}, step="")
        ),
        envelope(log("gen_ai.evaluation.result", 9, None, judged | {"gen_ai.evaluation.score.value": 0.75}, step="a1")),
        envelope(log("gen_ai.evaluation.result", 9, None, judged | {"gen_ai.evaluation.score.label": "pass"}, step="f1")),
    )
    carrier = span("e1", 9, {}, trace="5" + TRACE[1:], events=[("gen_ai.evaluation.result", judged | {"gen_ai.evaluation.score.value": 1})])
    write(envelope(carrier | {"links": [{"traceId": TRACE, "spanId": "a1"}]}), name="b.jsonl")
    found, feedback = run(path.parent)
    assert talks(found) == {"a1": FIRST}
    assert found.explicit_feedback.select("reply_id", "giver").unique().rows() == [("a1:1", "model")]
    assert feedback.sort("value", nulls_last=True).select("target", "kind", "value", "text", "giver", "given_at").rows() == [
        ("a1", "rating", 0.25, "dull", "model", at(9)),
        ("a1", "rating", 0.75, "dull", "model", at(9)),
        ("a1", "rating", 1.0, "dull", "model", at(9)),
        ("a1", "comment", None, "pass\ndull", "model", at(9)),
    ]
    assert found.superseded.filter(pl.col("cause") == "a score").height == 4


def test_spans_as_sdks_print_them(tmp_path: Path) -> None:
    def printed(step: str, minute: int, talk: list[tuple[str, str]]) -> dict[str, Any]:
        return {
            "name": "chat m",
            "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x00000000000000{step}", "trace_state": "[]"},
            "kind": "SpanKind.CLIENT",
            "parent_id": None,
            "start_time": f"2026-10-01T10:0{minute}:00.000000Z",
            "end_time": f"2026-10-01T10:0{minute}:02.500000Z",
            "attributes": request(talk, as_text=True, **{"gen_ai.conversation.id": "c"}),
            "events": [],
            "links": [],
            "resource": {"attributes": {"service.name": "shop", "enduser.id": "u-1"}, "schema_url": ""},
        }

    (tmp_path / "a.json").write_text("\n".join(json.dumps(printed(*each), indent=4) for each in [("a1", 0, FIRST), ("a2", 1, SECOND)]))
    found, _ = run(tmp_path / "a.json")
    assert talks(found) == {"c": SECOND}
    assert found.conversations["ended_at"].to_list() == [datetime(2026, 10, 1, 10, 1, 2, 500_000, tzinfo=UTC)]
    assert set(SourceRows(settings(tmp_path), now=NOW).collect(lambda rows: rows)["user_key"]) == {"u-1"}


def test_other_spellings_of_a_span(write: Callable[..., Path]) -> None:
    flat = {"trace_id": TRACE, "span_id": "a1", "start_time": EPOCH, "end_time": EPOCH + 2, **request(FIRST, as_text=True)}
    frame = {"trace_id": TRACE, "span_id": "a2", "timestamp": EPOCH} | {
        f"attributes.{name}": each for name, each in request(SECOND).items()
    }
    numbered = {
        **CHAT,
        **{f"gen_ai.prompt.{number}.{name}": each for number in range(11) for name, each in (("role", "user"), ("content", str(number)))},
        "gen_ai.completion.0.content": "x",
        "gen_ai.completion.1.content": "y",
        "traceloop.association.properties.user_id": "u",
    }
    clickhouse = {
        "Timestamp": "2026-10-01 10:00:00.123456789",
        "TraceId": "5" + TRACE[1:],
        "SpanId": "a3",
        "ParentSpanId": "",
        "SpanAttributes": numbered,
        "ResourceAttributes": {},
    }
    snake = {
        "resource_spans": [
            {"scope_spans": [{"spans": [{"trace_id": "6" + TRACE[1:], "span_id": "a4", "attributes": request(SECOND[2:])}]}]}
        ]
    }
    found, _ = run(write(flat, frame, clickhouse, snake))
    merged = "\n\n".join(str(number) for number in range(11))
    assert talks(found) == {"a2": SECOND, "a3": [("user", merged), ("assistant", "x")], "a4": SECOND[2:]}


def test_envelopes_in_parquet(tmp_path: Path) -> None:
    rows = [span("a1", 0, request(FIRST, as_text=True, **{"gen_ai.conversation.id": "c", "n": 1}))]
    pl.DataFrame([envelope(*rows)]).write_parquet(tmp_path / "a.parquet")
    assert talks(run(tmp_path)[0]) == {"c": FIRST}


def test_new_messages_of_a_conversation_that_the_server_keeps(write: Callable[..., Path]) -> None:
    known = {"gen_ai.conversation.id": "c"}
    rows = [
        span("a1", 0, request(FIRST, **known)),
        span("a2", 60, request(SECOND[2:], **known)),
        span("a3", 90, request(SECOND[2:], **known)),
    ]
    found, _ = run(write(envelope(*rows)))
    assert talks(found) == {"c": [*SECOND, *SECOND[2:]]}


def test_the_server_keeps_a_conversation_with_tools(write: Callable[..., Path]) -> None:
    known = {"gen_ai.conversation.id": "c", **CHAT}
    call = {"role": "assistant", "parts": [{"type": "tool_call", "id": "1", "name": "shop", "arguments": {}}]}
    result = {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "damson"}]}
    asked, answered = said("user", "what is left?"), said("assistant", "damsons")
    only_new = [([asked], call), ([result], answered)]
    everything = [([asked], call), ([asked, call, result], answered)]
    for requests in (only_new, everything):
        rows = [
            span(f"a{number}", number, {**known, "gen_ai.input.messages": before, "gen_ai.output.messages": [after]})
            for number, (before, after) in enumerate(requests)
        ]
        found, _ = run(write(envelope(*rows)))
        assert talks(found) == {"c": [("user", "what is left?"), ("assistant", "[tool call: shop]\n\n[tool result]\n\ndamsons")]}


def test_another_chat_of_a_session_with_histories_is_a_conversation_of_its_own(write: Callable[..., Path]) -> None:
    known = {"session.id": "s"}
    other = [("user", "hello"), ("assistant", "good day")]
    talk = [FIRST, SECOND, other, [*other, *FIRST]]
    rows = [span(f"a{number}", 60 * number, request(each, **known)) for number, each in enumerate(talk)]
    found, _ = run(write(envelope(*rows)))
    assert talks(found) == {"s": SECOND, "s#2": [*other, *FIRST]}


@pytest.mark.parametrize("body", ['{"role": "user", "content": "a"}', {"content": "a"}, "a"])
def test_log_records_that_name_their_event_among_the_attributes(body: Any, write: Callable[..., Path]) -> None:
    rows = [
        log("", 0, body, {"event.name": "gen_ai.user.message"}),
        log("", 1, {"message": {"content": "b"}}, {"event.name": "gen_ai.choice"}),
    ]
    path = write(envelope(span("a1", 0, CHAT)), envelope(*rows))
    assert talks(run(path)[0]) == {"a1": [("user", "a"), ("assistant", "b")]}


def test_a_user_column_of_ones_own(write: Callable[..., Path]) -> None:
    path = write(envelope(span("a1", 0, request(FIRST, **{"app.tenant": "t-1", "user.id": "service"}))))
    source = SourceRows(settings(path, fields={"user": "app.tenant"}), now=NOW)
    assert source.collect(lambda rows: rows)["user_key"].to_list() == ["t-1"]


ODD = {
    "no messages were captured": (span("b1", 0, CHAT), Reason.MISSING_FIELD, "no message list"),
    "text cut off": (span("b1", 0, CHAT | {"gen_ai.input.messages": '[{"role": "us'}), Reason.MISTYPED_FIELD, "gen_ai.input.messages"),
    "no reply": (span("b1", 0, CHAT | {"gen_ai.input.messages": [said("user", "a")]}), Reason.UNANSWERED_ONLY, "no reply"),
    "a role of its own": (span("b1", 0, request([("critic", "a"), *FIRST])), Reason.UNKNOWN_ROLE, "message 0"),
    "no user": (span("b1", 0, request([("system", "a"), FIRST[1]])), Reason.NO_USER_MESSAGE, "none of a user"),
    "a user that is a list": (span("b1", 0, request(FIRST) | {"user.id": ["u"]}), Reason.MISTYPED_FIELD, "user"),
    "long ago": (span("b1", -EPOCH, request(FIRST)), Reason.IMPOSSIBLE_TIMESTAMP, "1970"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_spans_are_told_and_spoil_no_other(name: str, write: Callable[..., Path]) -> None:
    odd, reason, detail = ODD[name]
    found, _ = run(write(envelope(span("a1", 0, request(FIRST)), odd | {"traceId": "5" + TRACE[1:]})))
    assert talks(found) == {"a1": FIRST}
    assert found.quarantine.select("row_number", "reason").rows() == [(1, reason)]
    assert detail in found.quarantine["detail"][0]


def test_whatever_is_in_an_envelope_is_accounted_for(write: Callable[..., Path]) -> None:
    path = write(
        envelope(span("a1", 0, request(FIRST) | {"nothing": {}})),
        {"resourceSpans": None, "resourceLogs": []},
        {"resourceSpans": [None, {"scopeSpans": "x"}, {"resource": {}}, {"scopeSpans": [{"spans": [7]}, {"scope": {}}]}]},
        {"resourceMetrics": [{}]},
        {"body": None, "event_name": "gen_ai.user.message"},
        {"body": "x"},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{}, {"attributes": ["x", {"key": "a"}, {"value": {}}]}]}]}]},
    )
    found, _ = run(path)
    assert talks(found) == {"a1": FIRST}
    assert len(found.quarantine) + len(found.superseded) == 8
    assert set(found.quarantine["reason"]) == {Reason.MISTYPED_FIELD, Reason.MISSING_FIELD}


def test_a_tree_of_keys() -> None:
    flat = {"a.10.b": 1, "a.2.b": None, "a.9": 2, "c": 3, "c.d": 4, "c.e.f": 5, "g": {"h": 6}, "g.i": 7, "x.0y": float("nan")}
    assert spans.tree(flat) == {"a": [2, {"b": 1}], "c": {"d": 4, "e": {"f": 5}}, "g": {"h": 6, "i": 7}}
    deep = spans.tree({".".join("a" * 5000): 1})
    assert json.dumps(deep).count("{") <= 30
