"""Rows of constructed WildChat files: what is rejected, what is repaired, who is the same user, and that no row gets lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.base.tables import CONVERSATIONS, QUARANTINE
from rlhi_dagster.conversations import Reason, Repair, sources
from rlhi_dagster.conversations import ingest as ingest_module
from rlhi_dagster.conversations.ingest import Ingested, ingest, user_id
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings

NOW = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
HEADER = pl.Struct({"accept-language": pl.String(), "user-agent": pl.String()})
HARMS = ("harassment", "hate", "self-harm", "sexual", "violence")
WILDCHAT = {
    "conversation_hash": pl.String(),
    "model": pl.String(),
    "timestamp": TIME,
    "conversation": pl.List(
        pl.Struct(
            {
                "content": pl.String(),
                "country": pl.String(),
                "hashed_ip": pl.String(),
                "header": HEADER,
                "language": pl.String(),
                "redacted": pl.Boolean(),
                "role": pl.String(),
                "state": pl.String(),
                "timestamp": TIME,
                "toxic": pl.Boolean(),
                "turn_identifier": pl.Int64(),
            }
        )
    ),
    "turn": pl.Int64(),
    "language": pl.String(),
    "openai_moderation": pl.List(pl.Struct({"categories": pl.Struct({harm: pl.Boolean() for harm in HARMS}), "flagged": pl.Boolean()})),
    "detoxify_moderation": pl.List(pl.Struct({"toxicity": pl.Float64()})),
    "toxic": pl.Boolean(),
    "redacted": pl.Boolean(),
    "state": pl.String(),
    "country": pl.String(),
    "hashed_ip": pl.String(),
    "header": HEADER,
}

Row = dict[str, object]
Source = Callable[..., SourceSettings]


def message(role: str | None, content: str | None, sent_at: datetime | None = None) -> Row:
    return {"role": role, "content": content, "timestamp": sent_at}


def talk(*texts: str) -> list[Row]:
    return [message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)]


def row(conversation_hash: str | None = "c1", conversation: object = "default", **changes: object) -> Row:
    """A sound row of its own user, unless changed."""
    return {
        "conversation_hash": conversation_hash,
        "model": "gpt-4",
        "timestamp": datetime(2023, 4, 10, 12, tzinfo=UTC),
        "conversation": talk("How tall are tulips?", "About 40 cm.") if conversation == "default" else conversation,
        "language": "English",
        "toxic": False,
        "hashed_ip": f"ip of {conversation_hash}",
        "header": {"accept-language": "en", "user-agent": "browser"},
        **changes,
    }


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """Write rows to Parquet files in WildChat's schema and describe them as a source."""

    def write(*rows: Row, files: dict[str, list[Row]] | None = None, **settings: object) -> SourceSettings:
        for name, content in (files or {"a.parquet": list(rows)}).items():
            complete = [{column: each.get(column) for column in WILDCHAT} for each in content]
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            pl.DataFrame(complete, schema=WILDCHAT, orient="row").write_parquet(path)
        defaults = {
            "name": "town",
            "kind": SourceKind.WILDCHAT,
            "location": str(tmp_path),
            "assumed_start": datetime(2023, 6, 1, tzinfo=UTC),
        }
        return SourceSettings(**defaults | settings)

    return write


def run(settings: SourceSettings, *months: str, salt: str = "pepper") -> Ingested:
    return ingest(settings, months or ("2023-04", "2023-05", "2023-06"), salt, now=NOW)


BROKEN = {
    "neither id nor list": (row(None, conversation=None), Reason.MISSING_FIELD, "conversation id, message list"),
    "blank id and no list": (row(" ", conversation=None), Reason.MISSING_FIELD, "conversation id, message list"),
    "no list": (row(conversation=None), Reason.MISSING_FIELD, "message list"),
    "no model": (row(model=None), Reason.MISSING_FIELD, "model"),
    "empty list": (row(conversation=[]), Reason.NOT_A_LIST_OF_MESSAGES, "empty"),
    "null entry": (row(conversation=[*talk("a", "b"), None]), Reason.NOT_A_LIST_OF_MESSAGES, "message 2"),
    "unknown role": (row(conversation=[*talk("a", "b"), message("narrator", "x")]), Reason.UNKNOWN_ROLE, "message 2"),
    "null role": (row(conversation=[message(None, "a"), message("assistant", "b")]), Reason.UNKNOWN_ROLE, "message 0"),
    "assistant alone": (row(conversation=[message("assistant", "a")]), Reason.NO_USER_MESSAGE, "1 message"),
    "no reply": (row(conversation=talk("a")), Reason.UNANSWERED_ONLY, "no reply"),
    "blank reply": (row(conversation=talk("a", " \n")), Reason.UNANSWERED_ONLY, "no reply"),
    "null content": (row(conversation=[message("user", None), message("assistant", "b")]), Reason.NO_USER_MESSAGE, "in words"),
    "no width": (row(conversation=talk("\u200b\ufeff", "b")), Reason.NO_USER_MESSAGE, "in words"),
    "thoughts only": (row(conversation=talk("a", "<think>b")), Reason.UNANSWERED_ONLY, "no reply"),
    "nul": (row(conversation=talk("a\x00b", "c")), Reason.INVALID_UNICODE, "message 0"),
    "noncharacter": (row(conversation=talk("a", "c\uffff")), Reason.INVALID_UNICODE, "message 1"),
    "noncharacter of another plane": (row(conversation=talk("a", "c\U0010ffff")), Reason.INVALID_UNICODE, "message 1"),
    "undecodable": (row(conversation=talk("a", "caf\ufffd")), Reason.INVALID_UNICODE, "message 1"),
    "long message": (row(conversation=talk("a", "b" * 51)), Reason.MESSAGE_TOO_LONG, "message 1 has 51 characters"),
    "long conversation": (row(conversation=talk(*"abcdefgh")), Reason.CONVERSATION_TOO_LONG, "8 messages"),
    "too early": (row(timestamp=datetime(2022, 10, 31, 23, tzinfo=UTC)), Reason.IMPOSSIBLE_TIMESTAMP, "2022-10-31"),
    "future": (row(timestamp=NOW + timedelta(seconds=1)), Reason.IMPOSSIBLE_TIMESTAMP, "2024-01-01"),
    "toxic": (row(toxic=True), Reason.TOXIC, "flagged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_rejected_with_its_reason(name: str, source: Source) -> None:
    broken, reason, detail = BROKEN[name]
    found = run(source(broken, row("sound"), max_message_characters=50, max_messages=6))
    assert found.quarantine.select("reason", "row_number").rows() == [(reason, 0)]
    assert detail in found.quarantine["detail"][0]
    assert found.quarantine["row_id"].to_list() == ["a.parquet#0"]
    assert found.conversations["conversation_id"].to_list() == ["sound"]


LINES = {Reason.UNREADABLE_JSON: b'{"conversation_hash": ', Reason.MISTYPED_FIELD: b'{"conversation": "Hello"}'}


@pytest.mark.parametrize("reason", LINES)
def test_a_broken_line_is_rejected_with_its_reason(reason: Reason, source: Source, tmp_path: Path) -> None:
    settings = source(row("sound"))
    (tmp_path / "b.jsonl").write_bytes(LINES[reason] + b"\n")
    found = run(settings)
    assert found.quarantine.select("row_id", "reason", "month").rows() == [("b.jsonl#0", reason, "2023-06")]
    assert found.conversations["conversation_id"].to_list() == ["sound"]


def test_a_damaged_row_group_is_rejected_and_the_rest_accepted(source: Source, tmp_path: Path) -> None:
    settings = source(row("c0"))
    path = tmp_path / "a.parquet"
    rows = [row("c0"), row("bad", talk("damaged text", "b")), row("c2"), row("c3", timestamp=datetime(2023, 5, 2, tzinfo=UTC))]
    complete = pl.DataFrame([{column: each.get(column) for column in WILDCHAT} for each in rows], schema=WILDCHAT, orient="row")
    complete.write_parquet(path, row_group_size=1, compression="uncompressed", statistics=False)
    path.write_bytes(path.read_bytes().replace(b"damaged text", b"damaged \xff\xff\xff\xff"))
    found = run(settings)
    assert found.quarantine.select("row_id", "reason", "detail", "conversation_id").rows() == [
        ("a.parquet#1", Reason.UNREADABLE_ROW_GROUP, "row group 1: cannot decode conversation", "bad")
    ]
    assert found.conversations["conversation_id"].to_list() == ["c0", "c2", "c3"]
    assert found.rows_in == {"2023-04": 3, "2023-05": 1, "2023-06": 0}


def test_other_and_unknown_languages_are_rejected_if_languages_are_chosen(source: Source) -> None:
    rows = row("c1"), row("c2", language="Dutch"), row("c3", language="French"), row("c4", language=None)
    found = run(source(*rows, languages=["English", "Dutch"]))
    assert found.conversations["conversation_id"].to_list() == ["c1", "c2"]
    assert found.quarantine.select("reason", "detail").rows() == [(Reason.LANGUAGE, "another language"), (Reason.LANGUAGE, "no language")]
    assert len(run(source(*rows)).conversations) == 4


def test_a_model_can_be_assumed(source: Source) -> None:
    assert run(source(row(model=None), row("c2"), assumed_model="m")).conversations["assistant"].to_list() == ["m", "gpt-4"]


def test_every_reason_is_produced_by_a_test() -> None:
    tested_apart = {Reason.DUPLICATE_CONVERSATION, Reason.LANGUAGE, Reason.UNREADABLE_ROW_GROUP, Reason.USER_FORGOTTEN}
    assert {reason for _, reason, _ in BROKEN.values()} | set(LINES) | tested_apart == set(Reason)


def test_a_row_that_breaks_several_rules_gets_the_first(source: Source) -> None:
    found = run(source(row(toxic=True, conversation=talk("a", ""), timestamp=datetime(1970, 1, 1, tzinfo=UTC))))
    assert found.quarantine["reason"].to_list() == [Reason.UNANSWERED_ONLY]


def test_limits_themselves_are_accepted(source: Source) -> None:
    settings = source(row(conversation=talk("a" * 50, "b", "c", "d")), max_message_characters=50, max_messages=4)
    assert len(run(settings).conversations) == 1


def test_a_few_replacement_characters_are_accepted(source: Source) -> None:
    assert len(run(source(row(conversation=talk("one \ufffd in a long enough message", "b")))).conversations) == 1


def test_toxic_rows_can_be_kept(source: Source) -> None:
    found = run(source(row(toxic=True), row("c2", toxic=None), drop_toxic=False))
    assert found.conversations.select("conversation_id", "is_toxic").rows() == [("c1", True), ("c2", None)]


def test_quarantine_never_shows_text(source: Source) -> None:
    rows = [row(f"c{i}", broken["conversation"], toxic=True) for i, (broken, _, _) in enumerate(BROKEN.values())]
    marked = [
        each
        | {
            "conversation": [
                m and m | {"content": f"tulips {m['content'] or ''}", "role": m["role"] and f"{m['role']} tulips"}
                for m in each["conversation"]
            ]
        }
        for each in rows
        if each["conversation"]
    ]
    found = run(source(*rows, *marked))
    assert len(found.quarantine) == len(rows) + len(marked)
    assert "tulips" not in found.quarantine.write_csv()


def test_tables_are_as_declared_even_if_empty(source: Source) -> None:
    for found in (run(source(row()), "2023-04"), run(source(row()), "2023-09"), run(source(row(None)), "2023-04")):
        assert found.conversations.schema == CONVERSATIONS.schema
        assert found.quarantine.schema == QUARANTINE.schema


def messages_of(found: Ingested) -> list[tuple[int, str, str]]:
    return [(m["message_index"], m["role"], m["content"]) for m in found.conversations["messages"][0]]


def test_consecutive_messages_of_a_role_are_merged_under_the_first_position(source: Source) -> None:
    late = datetime(2023, 4, 10, 11, 5, tzinfo=UTC)
    listed = [
        message("user", "a", late - timedelta(minutes=1)),
        message("user", "b", late),
        message("assistant", "c"),
        message("assistant", "d"),
        *talk("e", "f"),
    ]
    found = run(source(row(conversation=listed)))
    assert messages_of(found) == [(0, "user", "a\n\nb"), (2, "assistant", "c\n\nd"), (4, "user", "e"), (5, "assistant", "f")]
    conversation = found.conversations.row(0, named=True)
    assert conversation["repairs"] == [Repair.MERGED_CONSECUTIVE]
    assert conversation["user_turns"] == 2
    assert [m["message_id"] for m in conversation["messages"]] == ["c1:0", "c1:2", "c1:4", "c1:5"]
    assert conversation["messages"][0]["sent_at"] == late


LAST_WORDS = {
    "a reply at the end": ([], None, []),
    "one message": ([message("user", "c")], "c", []),
    "several messages": ([message("user", "c"), message("user", "d")], "c\n\nd", [Repair.MERGED_CONSECUTIVE]),
    "an empty one between": (
        [message("user", "c"), message("assistant", " "), message("user", "d")],
        "c\n\nd",
        [Repair.DROPPED_EMPTY, Repair.MERGED_CONSECUTIVE],
    ),
    "an empty reply": ([message("user", "c"), message("assistant", " ")], "c", []),
    "an empty message": ([message("user", " ")], None, []),
    "a system message": ([message("user", "c"), message("system", "s" * 99)], "c", [Repair.DROPPED_SYSTEM]),
    "as long as may be": ([message("user", "c" * 50)], "c" * 50, []),
    "too long": ([message("user", "c" * 51)], None, [Repair.DROPPED_UNANSWERED]),
    "one of several too long": ([message("user", "c"), message("user", "d" * 51)], None, [Repair.DROPPED_UNANSWERED]),
    "too many": ([message("user", "c"), message("user", "d"), message("user", "e")], None, [Repair.DROPPED_UNANSWERED]),
    "illegible": ([message("user", "caf\ufffd"), message("user", "")], None, [Repair.DROPPED_UNANSWERED]),
    "no text": ([message("user", "c\x00")], None, [Repair.DROPPED_UNANSWERED]),
}


@pytest.mark.parametrize("name", LAST_WORDS)
def test_what_nobody_answered_is_the_last_word_and_a_bad_one_costs_no_conversation(name: str, source: Source) -> None:
    end, last_word, repairs = LAST_WORDS[name]
    found = run(source(row(conversation=[*talk("a", "b"), *end]), max_message_characters=50, max_messages=4))
    assert messages_of(found) == [(0, "user", "a"), (1, "assistant", "b"), *([(2, "user", last_word)] if last_word else [])]
    (conversation,) = found.conversations.to_dicts()
    assert (conversation["has_last_word"], conversation["user_turns"], conversation["repairs"]) == (last_word is not None, 1, repairs)


def test_a_last_word_has_the_time_of_its_last_part_and_the_conversation_ends_with_it(source: Source) -> None:
    late = datetime(2023, 4, 10, 13, tzinfo=UTC)
    end = [message("user", "c", late - timedelta(minutes=5)), message("user", "d", late)]
    (conversation,) = run(source(row(conversation=[*talk("a", "b"), *end]))).conversations.to_dicts()
    assert (conversation["messages"][-1]["sent_at"], conversation["ended_at"]) == (late, late)


LEFT_OUT = {
    "a system message first": ([message("system", "s"), *talk("a", "b")], [(1, "a"), (2, "b")], [Repair.DROPPED_SYSTEM]),
    "system messages anywhere": (
        [message("user", "a"), message("system", "s" * 99), message("assistant", "b"), message("developer", "s"), *talk("c", "d")],
        [(0, "a"), (2, "b"), (4, "c"), (5, "d")],
        [Repair.DROPPED_SYSTEM],
    ),
    "an empty reply": (talk("a", " ", "b", "c"), [(0, "a\n\nb"), (3, "c")], [Repair.DROPPED_EMPTY, Repair.MERGED_CONSECUTIVE]),
    "an empty request": (talk("a", "b", "", "c"), [(0, "a"), (1, "b\n\nc")], [Repair.DROPPED_EMPTY, Repair.MERGED_CONSECUTIVE]),
    "thoughts": (talk("a", "<think>\nhm\n</think>\n\nb"), [(0, "a"), (1, "b")], []),
    "thoughts whose mark was swallowed": (talk("a", "hm\n</think>\nb", "c", "d"), [(0, "a"), (1, "b"), (2, "c"), (3, "d")], []),
    "a greeting": ([message("assistant", "hi"), *talk("a", "b")], [(1, "a"), (2, "b")], [Repair.DROPPED_GREETING]),
    "system, greeting and unanswered end": (
        [message("system", "s"), message("assistant", "hi"), *talk("a", "b", "c")],
        [(2, "a"), (3, "b"), (4, "c")],
        [Repair.DROPPED_SYSTEM, Repair.DROPPED_GREETING],
    ),
    "a tool's result": (
        [*talk("a"), message("tool", "3 C"), message("assistant", "b")],
        [(0, "a"), (1, "[tool result]\n\nb")],
        [Repair.MERGED_CONSECUTIVE],
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_no_dialogue_is_left_out_and_positions_stay(name: str, source: Source) -> None:
    listed, kept, repairs = LEFT_OUT[name]
    found = run(source(row(conversation=listed), max_message_characters=50))
    assert [(index, content) for index, _, content in messages_of(found)] == kept
    assert found.conversations["repairs"].to_list() == [repairs]


def test_a_mark_of_thoughts_that_is_spoken_about_stays(source: Source) -> None:
    said = "Models close their thoughts with `</think>` and then answer."
    assert messages_of(run(source(row(conversation=talk("What is </think>?", said))))) == [
        (0, "user", "What is </think>?"),
        (1, "assistant", said),
    ]


def test_an_impossible_message_time_is_cleared(source: Source) -> None:
    found = run(source(row(conversation=[message("user", "a", datetime(1970, 1, 1, tzinfo=UTC)), message("assistant", "b")])))
    assert found.conversations["messages"][0][0]["sent_at"] is None
    assert found.conversations["repairs"].to_list() == [[Repair.CLEARED_TIME]]


def test_a_sound_row_needs_no_repair(source: Source) -> None:
    conversation = run(source(row())).conversations.row(0, named=True)
    assert conversation["repairs"] == []
    assert conversation["started_at"] == datetime(2023, 4, 10, 12, tzinfo=UTC)
    assert (conversation["month"], conversation["is_start_assumed"]) == ("2023-04", False)
    assert (conversation["assistant"], conversation["language"], conversation["source"]) == ("gpt-4", "English", "town")


def test_a_row_without_time_starts_at_the_assumed_start(source: Source) -> None:
    conversation = run(source(row(timestamp=None)), "2023-06").conversations.row(0, named=True)
    assert conversation["started_at"] == datetime(2023, 6, 1, tzinfo=UTC)
    assert conversation["is_start_assumed"]


def test_a_conversation_starts_at_its_earliest_message_but_within_the_month_of_its_row(source: Source) -> None:
    last = datetime(2023, 4, 10, 12, tzinfo=UTC)
    early = [
        message("user", "a"),
        message("assistant", "b", last - timedelta(hours=1)),
        message("user", "c"),
        message("assistant", "d", last),
    ]
    before_midnight = [message("user", "a"), message("assistant", "b", datetime(2023, 4, 30, 23, 59, tzinfo=UTC))]
    rows = row("c1", early), row("c2", before_midnight, timestamp=datetime(2023, 5, 1, 0, 1, tzinfo=UTC))
    found = run(source(*rows)).conversations
    assert found["started_at"].to_list() == [last - timedelta(hours=1), datetime(2023, 5, 1, tzinfo=UTC)]
    assert found["month"].to_list() == ["2023-04", "2023-05"]


def test_an_impossible_start_is_quarantined_in_the_month_of_the_assumed_start(source: Source) -> None:
    found = run(source(row(timestamp=datetime(1970, 1, 1, tzinfo=UTC))), "2023-06")
    assert found.quarantine.select("month", "reason").rows() == [("2023-06", Reason.IMPOSSIBLE_TIMESTAMP)]


def test_every_row_is_accounted_for_in_its_month(source: Source) -> None:
    rows = [broken | {"conversation_hash": broken["conversation_hash"] and f"c{i}"} for i, (broken, _, _) in enumerate(BROKEN.values())]
    sound = [row(f"s{month}", timestamp=datetime(2023, month, 3, tzinfo=UTC)) for month in (4, 4, 5)]
    settings = source(files={"one/a.parquet": rows, "two/b.parquet": sound})
    found = run(settings)
    assert found.rows_in == sources.month_counts(settings, now=NOW)
    assert sum(found.rows_in.values()) == len(rows) + len(sound)
    both = pl.concat([found.conversations.select("month"), found.quarantine.select("month")])
    assert dict(both.group_by("month").len().iter_rows()) == found.rows_in


def test_a_lost_row_is_an_error(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "month_counts", lambda *_, **__: {"2023-04": 3})
    with pytest.raises(RuntimeError, match="2023-04: 3 rows in, but 1 accepted, 1 quarantined and 0 superseded"):
        run(source(row(), row(model=None)))


def test_a_month_comes_out_the_same_alone_and_with_others(source: Source) -> None:
    text = "Please write me an original prompt for a picture of a house by the sea, with all details of light and lens, number {}"
    rows = [row(f"c{i}", talk(text.format(i), f"b{i}"), timestamp=datetime(2023, 4 + i % 2, 3, tzinfo=UTC)) for i in range(6)]
    settings = source(*rows, row("c1", timestamp=datetime(2023, 5, 9, tzinfo=UTC)))
    together, alone = run(settings), run(settings, "2023-05")
    assert alone.conversations.equals(together.conversations.filter(pl.col("month") == "2023-05"))
    assert alone.quarantine.equals(together.quarantine.filter(pl.col("month") == "2023-05"))
    assert alone.conversations["template_id"].n_unique() == 1
    assert alone.conversations["template_id"].null_count() == 0


def test_a_repeated_id_is_a_duplicate_also_in_another_month_and_file(source: Source) -> None:
    later, earlier = datetime(2023, 5, 2, tzinfo=UTC), datetime(2023, 4, 30, tzinfo=UTC)
    settings = source(
        files={"a.parquet": [row("same", talk("x", "y"), timestamp=later)], "b.parquet": [row("other"), row("same", timestamp=earlier)]}
    )
    found = run(settings, "2023-05")
    assert len(found.conversations) == 0
    assert found.quarantine.select("row_id", "reason", "detail").rows() == [
        ("a.parquet#0", Reason.DUPLICATE_CONVERSATION, "same conversation id as b.parquet#1")
    ]
    assert run(settings, "2023-04").conversations["conversation_id"].to_list() == ["other", "same"]


def test_the_same_messages_are_a_duplicate_for_the_same_user_only(source: Source) -> None:
    rows = [
        row("c1", hashed_ip="x"),
        row("c2", hashed_ip="x"),
        row("c3", hashed_ip="y"),
        row("c4", hashed_ip=None),
        row("c5", hashed_ip=None),
    ]
    found = run(source(*rows))
    assert found.conversations["conversation_id"].to_list() == ["c1", "c3", "c4", "c5"]
    assert found.quarantine["detail"].to_list() == ["same messages of the same user as a.parquet#0"]


def test_other_roles_or_other_texts_are_no_duplicates(source: Source) -> None:
    split = [message("user", "a"), message("assistant", "b"), message("assistant", "c"), *talk("d", "e")]
    other = [message("user", "a"), message("user", "b"), message("assistant", "c"), *talk("d", "e")]
    found = run(source(row("c1", split, hashed_ip="x"), row("c2", other, hashed_ip="x"), row("c3", talk("a", "b"), hashed_ip="x")))
    assert len(found.conversations) == 3


def test_a_rejected_row_displaces_nothing(source: Source) -> None:
    rows = [
        row("same", talk("a", "")),  # rejected: the next row with this id is no repeat
        row("same", talk("a", "b"), hashed_ip="x"),
        row("same", talk("c", "d"), hashed_ip="x"),  # repeats an id
        row("c4", talk("c", "d"), hashed_ip="x"),  # like the row before, which was rejected itself
    ]
    found = run(source(*rows))
    assert found.quarantine.select("row_number", "reason").rows() == [(0, Reason.UNANSWERED_ONLY), (2, Reason.DUPLICATE_CONVERSATION)]
    assert found.conversations["conversation_id"].to_list() == ["c4", "same"]


def test_of_repeats_that_start_together_the_first_row_stays(source: Source) -> None:
    found = run(source(row("same", talk("a", "b")), row("same", talk("c", "d"))))
    assert messages_of(found)[0][2] == "a"


def test_users_are_told_by_address_and_headers(source: Source) -> None:
    phone = {"accept-language": "en", "user-agent": "phone"}
    rows = [
        row("c1", talk("a", "1"), hashed_ip="x"),
        row("c2", talk("a", "2"), hashed_ip="x"),
        row("c3", talk("a", "3"), hashed_ip="x", header=phone),
        row("c4", talk("a", "4"), hashed_ip="y"),
        row("c5", talk("a", "5"), hashed_ip="x", header=None),
        row("c6", talk("a", "6"), hashed_ip=None),
        row("c7", talk("a", "7"), hashed_ip=None),
    ]
    first, second, *others = run(source(*rows)).conversations["user_id"].to_list()
    assert first == second
    assert len({first, *others}) == 6
    assert all(len(user) == 32 and "x" not in user for user in (first, *others))


def test_user_ids_depend_on_the_salt(source: Source) -> None:
    settings = source(row())
    assert run(settings, salt="a").conversations["user_id"][0] != run(settings, salt="b").conversations["user_id"][0]
    assert run(settings, salt="a").conversations["user_id"][0] == user_id("ip of c1\nen\nbrowser", "c1", "a")


def test_a_user_key_and_a_conversation_of_the_same_name_are_different_users() -> None:
    assert user_id("c1", "any", "salt") != user_id(None, "c1", "salt")


@pytest.mark.parametrize(("months", "salt", "complaint"), [(["2023-13"], "s", "2023-13"), (["2023-04"], "", "salt")])
def test_bad_arguments_are_named(months: list[str], salt: str, complaint: str, source: Source) -> None:
    with pytest.raises(ValueError, match=complaint):
        ingest(source(row()), months, salt)


def test_messages_are_redacted_and_the_kinds_are_kept(source: Source) -> None:
    texts = ["Write to ann@lee.org", "Done, and to +44 20 7946 0958.", "ann@lee.org again", "ok"]
    merged = [*talk(*texts), message("user", "x"), message("user", "bob@lee.org"), message("assistant", "ok")]
    last_word = message("user", "No, ann@lee.org")
    found = run(source(row("c1", [*merged, last_word]), row("c2"))).conversations
    assert found["redactions"].to_list() == [["email", "phone", "email", "email", "email"], []]
    assert [each["content"] for each in found["messages"][0]] == [
        "Write to <EMAIL>",
        "Done, and to <PHONE>.",
        "<EMAIL> again",
        "ok",
        "x\n\n<EMAIL>",
        "ok",
        "No, <EMAIL>",
    ]
    plain = run(source(row("c1", merged), redaction={"kinds": []})).conversations
    assert plain["messages"][0][0]["content"] == texts[0]
    assert plain["redactions"].to_list() == [[]]


def test_rows_of_a_forgotten_user_are_counted_and_nothing_else_of_them_is_kept(source: Source) -> None:
    ip = "ip of c1"
    same_user = {"hashed_ip": ip, "header": {"accept-language": "en", "user-agent": "browser"}}
    settings = source(
        row("c1"),
        row("c2", talk("And roses?", "Taller."), **same_user, timestamp=datetime(2023, 5, 2, tzinfo=UTC)),
        row(None, model=None, **same_user),  # would be a missing_field
        row("c1", hashed_ip="somebody else", timestamp=datetime(2023, 4, 11, tzinfo=UTC)),
    )
    before = run(settings)
    forgotten = before.conversations.filter(conversation_id="c1")["user_id"].item()
    assert dict(before.quarantine.group_by("reason").len().iter_rows()) == {"missing_field": 1, "duplicate_conversation": 1}

    after = ingest(settings, ["2023-04", "2023-05", "2023-06"], "pepper", now=NOW, forgotten={forgotten, "never seen"})
    assert after.rows_in == before.rows_in
    assert len(after.conversations) + len(after.quarantine) == sum(after.rows_in.values())
    assert after.conversations["conversation_id"].to_list() == ["c1"], "another user's row is no repeat of a forgotten one"
    assert forgotten not in after.conversations["user_id"].to_list()
    rejected = after.quarantine
    assert rejected["reason"].to_list() == [Reason.USER_FORGOTTEN] * 3
    assert rejected["month"].to_list().count("2023-05") == 1
    assert rejected["conversation_id"].null_count() == 3
    assert set(rejected["detail"]) == {"the user has a tombstone"}


def test_a_tombstone_made_with_another_salt_matches_nobody(source: Source) -> None:
    settings = source(row("c1"))
    forgotten = run(settings).conversations["user_id"].item()
    assert len(ingest(settings, ["2023-04"], "salt", now=NOW, forgotten={forgotten}).conversations) == 1
    assert len(ingest(settings, ["2023-04"], "pepper", now=NOW, forgotten={forgotten}).conversations) == 0


def test_a_conversation_that_is_a_user_of_its_own_can_be_forgotten(source: Source) -> None:
    settings = source(row("c1", hashed_ip=None, header=None), row("c2", hashed_ip=None, header=None))
    users = dict(run(settings).conversations.select("conversation_id", "user_id").iter_rows())
    after = ingest(settings, ["2023-04"], "pepper", now=NOW, forgotten={users["c1"]})
    assert after.conversations["conversation_id"].to_list() == ["c2"]


@pytest.mark.parametrize("how", ["replaced", "replaced and put back", "written to", "deleted"])
def test_a_source_that_is_replaced_between_its_two_passes_by_as_many_rows_is_noticed(source: Source, tmp_path: Path, how: str) -> None:
    settings = source(*(row(f"c{number}") for number in range(20)))
    judged = ingest_module.judge(settings, ["2023-04"], "salt", now=NOW)
    file, kept = tmp_path / "a.parquet", tmp_path / "kept"
    shutil.copy2(file, kept)
    if how == "deleted":
        file.unlink()
    elif how == "written to":
        content, times = file.read_bytes(), file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        source(*(row(f"c{number}", toxic=True) for number in range(20)))
    if how == "replaced and put back":
        kept.replace(file)
    with pytest.raises((RuntimeError, OSError), match=r"a\.parquet (changed|went) while it was read: launch again|No such file"):
        list(judged.conversations())


def test_a_source_that_stays_is_read_twice(source: Source) -> None:
    judged = ingest_module.judge(source(row("c0"), row("c1")), ["2023-04"], "salt", now=NOW)
    for _ in range(2):
        assert sum(len(found) for found in judged.conversations()) == 2
