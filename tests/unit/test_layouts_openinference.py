"""Spans of OpenInference and Phoenix's annotations: by REST, as data frames, as OTLP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.conversations import Reason
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings, detect_kind, month_counts

NOW = datetime(2027, 1, 1, tzinfo=UTC)
START = datetime(2026, 10, 1, 10, tzinfo=UTC)
TRACE = "80f198ee56343ba864fe8b2a57d3eff7"
FIRST = [("user", "name three plums"), ("assistant", "damson, greengage, mirabelle")]
SECOND = [*FIRST, ("user", "only red ones"), ("assistant", "damson")]


def settings(location: Path, **changes: Any) -> SourceSettings:
    return SourceSettings(name="s", kind=SourceKind.OPENINFERENCE, location=str(location), assumed_start=START, **changes)


def run(location: Path, **changes: Any) -> tuple[Ingested, pl.DataFrame]:
    """What becomes of the rows, none of which may be lost, and the feedback."""
    assert detect_kind(str(location)) is SourceKind.OPENINFERENCE
    source = settings(location, **changes)
    found = ingest(source, list(month_counts(source, now=NOW)), "salt", now=NOW)
    assert sum(found.rows_in.values()) == len(found.conversations) + len(found.quarantine) + len(found.superseded)
    rows = SourceRows(source, now=NOW)
    return found, rows.feedback().collect().select("target", "kind", "value", "text", "giver", "given_at")


def talks(found: Ingested) -> dict[str, list[tuple[str, str]]]:
    return {
        row["conversation_id"]: [(message["role"], message["content"]) for message in row["messages"]]
        for row in found.conversations.iter_rows(named=True)
    }


def users(location: Path) -> list[str | None]:
    rows = SourceRows(settings(location), now=NOW)
    return rows.collect(lambda found: found).sort("source_file", "row_number")["user_key"].to_list()


def write(folder: Path, *rows: Any, name: str = "spans.jsonl") -> Path:
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def flat(talk: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    """The attributes of a request with lists written into the keys."""
    *asked, answered = talk
    both = {"input": asked, "output": [answered]}
    return {"openinference.span.kind": "LLM", "llm.model_name": "m", **more} | {
        f"llm.{side}_messages.{number}.message.{name}": value
        for side, told in both.items()
        for number, (role, text) in enumerate(told)
        for name, value in (("role", role), ("content", text))
    }


def span(
    step: str, minute: int, attributes: dict[str, Any], *, kind: str = "LLM", parent: str | None = None, trace: str = TRACE
) -> dict[str, Any]:
    """A span as Phoenix's REST interface gives it."""
    return {
        "id": f"U3Bhbjo{step}",
        "name": "ChatCompletion",
        "context": {"trace_id": trace, "span_id": step},
        "span_kind": kind,
        "parent_id": parent,
        "start_time": (START + timedelta(minutes=minute)).isoformat(),
        "end_time": (START + timedelta(minutes=minute, seconds=2)).isoformat(),
        "status_code": "OK",
        "status_message": "",
        "attributes": attributes,
        "events": [],
    }


def annotation(name: str, kind: str = "HUMAN", at: int = 5, **changes: Any) -> dict[str, Any]:
    result = {each: changes.pop(each, None) for each in ("label", "score", "explanation")}
    moment = (START + timedelta(minutes=at)).isoformat()
    given = {"id": f"U3Bhbkx{at}", "name": name, "annotator_kind": kind, "result": result, "metadata": {}, "identifier": ""}
    return {**given, "source": "API", "user_id": None, "created_at": moment, "updated_at": moment, **changes}


def minutes(*given: float) -> list[datetime]:
    return [START + timedelta(minutes=each) for each in given]


def conversation() -> list[dict[str, Any]]:
    """Two requests, each below a chain that alone knows the session, the user and what the request says as well."""
    other = "5" + TRACE[1:]
    known = {"session.id": "s-1", "user.id": "u-1", "input.value": "x", "output.value": "y"}
    return [
        span("c1", 0, known, kind="CHAIN"),
        span("a1", 1, flat(FIRST), parent="c1"),
        span("c2", 3, known, kind="AGENT", trace=other),
        span("t2", 4, {"input.value": "{}"}, kind="TOOL", parent="c2", trace=other),
        span("a2", 5, flat(SECOND), parent="c2", trace=other),
    ]


def test_only_requests_speak_and_what_chains_know_is_theirs(tmp_path: Path) -> None:
    write(tmp_path, {"data": conversation(), "next_cursor": None})
    found, feedback = run(tmp_path)
    assert talks(found) == {"s-1": SECOND}
    assert [message["sent_at"] for message in found.conversations["messages"][0]] == minutes(1, 1 + 1 / 30, 5, 5 + 1 / 30)
    assert found.conversations["assistant"].to_list() == ["m"]
    assert users(tmp_path) == ["u-1"] * 5
    assert found.superseded["cause"].value_counts().sort("count").rows() == [
        ("a later row repeats and continues it", 1),
        ("a step of an agent, a chain or a tool", 3),
    ]
    assert feedback.is_empty()


def test_annotations_are_joined_by_span_and_counted_once(tmp_path: Path) -> None:
    write(tmp_path, {"data": conversation(), "next_cursor": None})
    thumb = {"label": "thumbs-down", "score": 0.0, "explanation": "too many"}
    given = [
        annotation("user feedback", span_id="c1", **thumb),
        annotation("user feedback", trace_id=TRACE, at=6, **thumb),  # the same, on the trace as well as on its root
        annotation("taste", span_id="a2", label="👍"),
        annotation("helpfulness", "LLM", span_id="a1", score=0.5, label="fair", explanation="dull"),
        annotation("correctness", "LLM", span_id="a1", score=1, label="right"),
        annotation("length", "CODE", span_id="a1", label="long"),
        annotation("review", span_id="a2", score=4, source="APP", user_id="VXNlcjox"),
        annotation("relevance", span_id="t2", score=1, document_position=0),
        annotation("nothing", span_id="a2"),
        annotation("mood", session_id="s-1", label="calm"),
    ]
    write(tmp_path, {"data": given, "next_cursor": None}, name="annotations.json")
    found, feedback = run(tmp_path)
    assert talks(found) == {"s-1": SECOND}
    assert feedback.sort("target", "kind", "value", "giver", nulls_last=True).rows() == [
        ("a1", "comment", None, "long", "model", *minutes(5)),
        ("a1", "rating", 0.5, "fair\ndull", "model", *minutes(5)),
        ("a1", "rating", 1.0, "right", "model", *minutes(5)),
        ("a1", "thumb", -1.0, "too many", "end_user", *minutes(5)),
        ("a2", "rating", 4.0, None, "staff", *minutes(5)),
        ("a2", "thumb", 1.0, None, "end_user", *minutes(5)),
        ("s-1", "comment", None, "calm", "end_user", *minutes(5)),
    ]
    assert found.superseded.filter(pl.col("cause") == "a score").height == 10
    thumbs = found.explicit_feedback.filter(pl.col("kind") == "thumb").sort("value")
    assert thumbs.select("reply_id", "value", "text").rows() == [("s-1:1", -1.0, "too many"), ("s-1:3", 1.0, None)]


def test_annotations_that_spans_carry(tmp_path: Path) -> None:
    other = "5" + TRACE[1:]

    def carried(one: str, number: int = 0, scope: str = "", **said: Any) -> dict[str, Any]:
        return {f"{scope}{one}s.{number}.{one}.{name}": value for name, value in said.items()}

    judge = {"name": "grounded", "score": 1, "annotator_kind": "LLM"}
    root = {
        **carried("annotation", name="thumbs", score=1, annotator_kind="HUMAN", explanation="neat"),
        **carried("annotation", 1, **judge),
        **carried("evaluation", **judge),
        **carried("annotation", scope="trace.", name="pace", score=0.92, annotator_kind="CODE"),
        **carried("annotation", scope="session.", name="mood", label="calm", annotator_kind="HUMAN"),
        "session.id": "s-1",
    }
    carrier = span(
        "e1", 9, {**carried("evaluation", name="later", label="thumbs-down", annotator_kind="HUMAN")}, kind="EVALUATOR", trace=other
    )
    carrier["links"] = [{"context": {"trace_id": TRACE, "span_id": "a1"}}]
    of_trace = span("e2", 9, {**carried("evaluation", scope="trace.", name="tone", score=0.5)}, kind="EVALUATOR", trace=other)
    of_trace["links"] = [{"trace_id": TRACE, "span_id": "c1"}]
    write(tmp_path, span("c1", 0, root, kind="CHAIN"), span("a1", 1, flat(FIRST), parent="c1"), carrier, of_trace)
    found, feedback = run(tmp_path)
    assert talks(found) == {"s-1": FIRST}
    assert feedback.drop("given_at").sort("kind", "value", "target").rows() == [
        ("s-1", "comment", None, "calm", "end_user"),
        ("a1", "rating", 0.5, None, "model"),
        ("a1", "rating", 0.92, None, "model"),
        ("a1", "rating", 1.0, None, "model"),
        ("a1", "thumb", -1.0, None, "end_user"),
        ("a1", "thumb", 1.0, "neat", "end_user"),
    ]


def frame(rows: list[dict[str, Any]], *, is_new: bool) -> pl.DataFrame:
    """Spans as `get_spans_dataframe` gives them: a column for each attribute, lists nested."""

    def messages(attributes: dict[str, Any], side: str) -> list[dict[str, Any]] | None:
        found = [
            (attributes[f"{name}.role"], attributes[f"{name}.content"])
            for number in range(9)
            if f"{(name := f'llm.{side}_messages.{number}.message')}.role" in attributes
        ]
        told = [{"role": role, "content": text, "tool_calls": None} for role, text in found]
        return [{"message": each} if is_new else {f"message.{name}": value for name, value in each.items()} for each in told] or None

    return pl.DataFrame(
        [
            {
                "name": row["name"],
                "span_kind": row["span_kind"],
                "parent_id": row["parent_id"],
                "start_time": datetime.fromisoformat(row["start_time"]),
                "end_time": datetime.fromisoformat(row["end_time"]),
                "context.span_id": row["context"]["span_id"],
                "context.trace_id": row["context"]["trace_id"],
                "attributes.session.id": row["attributes"].get("session.id"),
                "attributes.user.id": row["attributes"].get("user.id"),
                "attributes.llm.model_name": row["attributes"].get("llm.model_name"),
                "attributes.llm.token_count.prompt": float("nan"),
                "attributes.llm.input_messages": messages(row["attributes"], "input"),
                "attributes.llm.output_messages": messages(row["attributes"], "output"),
                "attributes.openinference.span.kind": row["span_kind"],
            }
            for row in rows
        ],
        infer_schema_length=None,
    )


@pytest.mark.parametrize("is_new", [False, True])
@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_data_frames(is_new: bool, ending: str, tmp_path: Path) -> None:
    spans = frame(conversation(), is_new=is_new)
    given = pl.DataFrame(
        [{"span_id": "c2", "annotation_name": "user feedback", "annotator_kind": "HUMAN", "result.label": None, "result.score": score,
          "result.explanation": None, "created_at": START, "source": "API"} for score in (1.0, float("nan"))]
    )  # fmt: skip
    for name, table in (("spans", spans), ("annotations", given)):
        if ending == "parquet":
            table.write_parquet(tmp_path / f"{name}.parquet")
        else:
            (tmp_path / f"{name}.json").write_text(table.write_json())
    found, feedback = run(tmp_path)
    assert talks(found) == {"s-1": SECOND}
    assert users(tmp_path) == [None, None, *["u-1"] * 5]
    assert [message["sent_at"] for message in found.conversations["messages"][0]] == minutes(1, 1 + 1 / 30, 5, 5 + 1 / 30)
    assert feedback.rows() == [("a2", "thumb", 1.0, None, "end_user", START)]


def test_an_end_that_is_no_time_is_cleared(tmp_path: Path) -> None:
    write(tmp_path, span("a1", 0, flat(FIRST)) | {"end_time": "soon"})
    (row,) = run(tmp_path)[0].conversations.iter_rows(named=True)
    assert row["repairs"] == ["cleared_time"]
    assert [message["sent_at"] for message in row["messages"]] == [START, None]


def test_a_column_of_ones_own_is_the_user(tmp_path: Path) -> None:
    frame(conversation(), is_new=True).rename({"attributes.user.id": "attributes.shop.customer"}).write_parquet(tmp_path / "a.parquet")
    rows = SourceRows(settings(tmp_path, fields={"user": "attributes.shop.customer"}), now=NOW)
    assert set(rows.collect(lambda found: found)["user_key"]) == {"u-1"}


def test_otlp_and_nested_attributes(tmp_path: Path) -> None:
    def value(given: Any) -> dict[str, Any]:
        return {"stringValue": given}

    attributes = [
        {"key": name, "value": value(each)} for name, each in flat(FIRST, **{"session.id": "s-1", "metadata": '{"user_id": "u-2"}'}).items()
    ]
    sent = {"traceId": TRACE, "spanId": "a1", "startTimeUnixNano": "1790848800000000000", "endTimeUnixNano": "1790848802000000000"}
    otlp = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [{**sent, "attributes": attributes}]}]}]}
    *asked, answered = [{"message": {"role": role, "content": text}} for role, text in SECOND]
    nested = {
        "openinference": {"span": {"kind": "LLM"}},
        "llm": {"input_messages": asked, "output_messages": [answered], "model_name": "m"},
    }
    write(tmp_path, otlp, span("a2", 5, {**nested, "session": {"id": "s-1"}, "user": {"id": "u-2"}}, trace="5" + TRACE[1:]))
    found, _ = run(tmp_path)
    assert talks(found) == {"s-1": SECOND}
    assert users(tmp_path) == ["u-2", "u-2"]


def test_parts_calls_and_drafts(tmp_path: Path) -> None:
    contents = "llm.input_messages.0.message.contents"
    call = "llm.input_messages.1.message.tool_calls.0.tool_call.function"
    given = {
        "llm.model_name": "m",
        "llm.invocation_parameters": '{"n": 2}',
        "llm.input_messages.0.message.role": "user",
        f"{contents}.0.message_content.type": "text",
        f"{contents}.0.message_content.text": "what is it?",
        f"{contents}.1.message_content.type": "image",
        f"{contents}.1.message_content.image.image.url": "data:image/png;base64,AAAA",
        f"{contents}.2.message_content.type": "hologram",
        "llm.input_messages.1.message.role": "assistant",
        f"{call}.name": "look",
        f"{call}.arguments": "{}",
        "llm.input_messages.2.message.role": "tool",
        "llm.input_messages.2.message.content": "a plum",
        "llm.input_messages.2.message.name": "look",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "a plum",
        "llm.output_messages.1.message.role": "assistant",
        "llm.output_messages.1.message.content": "a pear",
    }
    write(tmp_path, span("a1", 0, given, kind="UNKNOWN"))
    found, _ = run(tmp_path)
    said = [("user", "what is it?\n[image]\n[hologram]"), ("assistant", "[tool call: look]\n\n[tool result: look]\n\na plum")]
    assert talks(found) == {"a1": said}
    # The same without drafts: what the reply consists of.
    write(tmp_path, span("a1", 0, given | {"llm.invocation_parameters": '{"n": 1}'}))
    assert talks(run(tmp_path)[0])["a1"][1][1].endswith("a plum\n\na pear")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("a", "b"),
        (
            '{"messages": [{"role": "user", "content": "a"}], "model": "m"}',
            '{"choices": [{"message": {"role": "assistant", "content": "b"}}]}',
        ),
        ('[{"role": "user", "content": "a"}]', '{"role": "assistant", "content": "b"}'),
    ],
)
def test_requests_that_have_no_messages_but_values(asked: str, answered: str, tmp_path: Path) -> None:
    write(tmp_path, span("a1", 0, {"input.value": asked, "output.value": answered, "llm.invocation_parameters": '{"model": "m"}'}))
    assert talks(run(tmp_path)[0]) == {"a1": [("user", "a"), ("assistant", "b")]}


def test_what_is_hidden_is_nobodys_words(tmp_path: Path) -> None:
    hidden = flat(FIRST) | {"llm.input_messages.0.message.content": "__REDACTED__"}
    write(tmp_path, span("a1", 0, hidden), span("a2", 0, {"llm.model_name": "m", "input.value": "__REDACTED__", "output.value": "b"}))
    found, _ = run(tmp_path)
    assert found.quarantine["reason"].to_list() == [Reason.NO_USER_MESSAGE] * 2


def test_other_conventions_in_the_same_file_are_read_as_well(tmp_path: Path) -> None:
    said = {"gen_ai.request.model": "m", "gen_ai.prompt": "a", "gen_ai.completion": "b"}
    other = {"trace_id": "5" + TRACE[1:], "span_id": "b1", "start_time": START.isoformat(), "attributes": said}
    write(tmp_path, span("a1", 0, flat(FIRST)), span("a2", 1, flat(SECOND)), other)
    assert talks(run(tmp_path)[0]) == {"a2": SECOND, "b1": [("user", "a"), ("assistant", "b")]}


def test_a_request_that_two_libraries_traced_counts_once(tmp_path: Path) -> None:
    rows = [span("c1", 0, {}, kind="CHAIN"), span("a1", 1, flat(FIRST), parent="c1"), span("b1", 2, flat(FIRST), parent="a1")]
    write(tmp_path, *rows)
    write(tmp_path, *(annotation("thumbs", span_id=each, score=score) for each, score in (("b1", 1), ("c1", 0))), name="b.jsonl")
    found, feedback = run(tmp_path)
    assert talks(found) == {"a1": FIRST}
    assert feedback["target"].to_list() == ["a1", "a1"]
    assert sorted(found.superseded["cause"]) == ["a score"] * 2 + [
        "a step of an agent, a chain or a tool",
        "another row of the same request",
    ]


ODD: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "messages are a text": (span("b1", 0, {"llm.input_messages": "x"}), Reason.MISTYPED_FIELD, "llm.input_messages: no list"),
    "a message is a text": (
        span("b1", 0, {"llm.input_messages": [{"message.role": "user"}, "x"]}),
        Reason.MISTYPED_FIELD,
        "llm.input_messages.1",
    ),
    "nothing was captured": (span("b1", 0, {"llm.model_name": "m"}), Reason.MISSING_FIELD, "no message list"),
    "no model": (span("b1", 0, flat(FIRST, **{"llm.model_name": None})), Reason.MISSING_FIELD, "no model"),
    "a time that is none": (span("b1", 0, flat(FIRST)) | {"start_time": "soon"}, Reason.MISTYPED_FIELD, "started_at"),
    "an annotation at no time": (annotation("x", span_id="a1", created_at="soon"), Reason.MISTYPED_FIELD, "created_at"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_rows_are_told_and_spoil_no_other(name: str, tmp_path: Path) -> None:
    odd, reason, detail = ODD[name]
    write(tmp_path, span("a1", 0, flat(FIRST), trace="5" + TRACE[1:]), odd)
    found, _ = run(tmp_path)
    assert talks(found) == {"a1": FIRST}
    assert found.quarantine.select("row_number", "reason").rows() == [(1, reason)]
    assert detail in found.quarantine["detail"][0]
