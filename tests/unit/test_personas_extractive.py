"""Persona lines and snapshots: what they cite, when they hold, and that no later message is ever used."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_dagster.base.tables import CONVERSATIONS, PERSONAS, SOURCE_MESSAGES, TIME
from rlhi_dagster.conversations.turns import timed
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.personas import extractive
from rlhi_dagster.personas.domains import DOMAINS, Embed, domains_of
from rlhi_dagster.personas.evidence import faults
from rlhi_dagster.personas.settings import PersonaSettings
from rlhi_dagster.personas.snapshots import personas_at, render
from rlhi_dagster.personas.versions import MAX_EVIDENCE, Dropped, Written

START = datetime(2023, 4, 1, tzinfo=UTC)
WANTED = Feedback.REATTEMPT_WITH_FEEDBACK.value
TEXTS = ["Make it shorter, please.", "Too short.", "Use bullet points.", "no lists", "Be more friendly.", "More formal, please.",
         "In Spanish, please.", "Longer, and in English please", "How do I grow mint?", "No, I meant tulips."]  # fmt: skip


def messages(rows: list[tuple[str, int, int, str, str | None]]) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Turns and labels from (user, hour, turn, text, label); every message its own conversation."""
    schema = {"user_id": pl.String, "hour": pl.Int64, "turn": pl.Int32, "prompt": pl.String, "label": pl.String}
    frame = (
        pl.DataFrame(rows, schema=schema, orient="row")
        .with_row_index("n")
        .with_columns(
            conversation_id=pl.format("c{}", "n"),
            turn_id=pl.format("c{}:{}", "n", "turn"),
            asked_at=(pl.lit(START) + pl.duration(hours="hour")).cast(TIME),
        )
    )
    return frame.drop("label").lazy(), frame.filter(pl.col("label").is_not_null()).select("turn_id", "label").lazy()


def nothing(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("wishes and languages need no vectors")


def persona_lines(turns: pl.LazyFrame, labels: pl.LazyFrame, **settings: Any) -> pl.DataFrame:
    """Wishes only, said once, if nothing else is said."""
    return written(turns, labels, **{"extracts": ("wishes",), **settings}).lines


def written(
    turns: pl.LazyFrame, labels: pl.LazyFrame, conversations: pl.LazyFrame | None = None, embed: Embed = nothing, **settings: Any
) -> Written:
    empty = CONVERSATIONS.empty().lazy()
    chosen = PersonaSettings(**{"wish_conversations": 1, **settings})
    return extractive.persona_lines(turns, labels, empty if conversations is None else conversations, chosen, embed)


def random_town(seed: int, size: int = 120) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(size):
        turn = int(generator.integers(1, 4))
        label = str(generator.choice([WANTED, "continuation"], p=[0.8, 0.2])) if turn > 1 else None
        rows.append((f"u{generator.integers(0, 4)}", int(generator.integers(0, 60)), turn, str(generator.choice(TEXTS)), label))
    return messages(rows)


def with_last_words(turns: pl.LazyFrame, seed: int) -> tuple[pl.LazyFrame, dict[str, datetime]]:
    """Conversations in which half of the follow-ups are last words, half of them without a time; and when each message was said.

    Of those without one ``asked_at`` says too little: they were said up to 30 hours later.
    """
    generator = np.random.default_rng(seed)
    rows, said_at = [], {}
    for row in turns.collect().iter_rows(named=True):
        is_last, is_timed = (bool(drawn < 0.5) for drawn in generator.random(2))
        is_last = is_last and row["turn"] > 1
        messages = [{"message_id": row["turn_id"], "role": "user", "sent_at": row["asked_at"] if is_timed else None}]
        rows.append({"conversation_id": row["conversation_id"], "has_last_word": is_last, "messages": messages})
        later = timedelta(hours=int(generator.integers(1, 30)) if is_last and not is_timed else 0)
        said_at[row["turn_id"]] = row["asked_at"] + later
    return pl.LazyFrame(rows, schema_overrides={"messages": SOURCE_MESSAGES}), said_at


def test_a_run_of_the_same_wish_gathers_evidence_and_a_change_starts_anew() -> None:
    lines = persona_lines(*messages([("u", 1, 2, "Too long.", WANTED), ("u", 2, 2, "Shorter!", WANTED), ("u", 3, 2, "too short", WANTED)]))
    lines = lines.sort("valid_from")
    assert lines.schema == PERSONAS.schema
    assert lines["line"].to_list() == ["Prefers short answers.", "Prefers short answers.", "Prefers long, detailed answers."]
    assert lines["evidence"].to_list() == [["c0:2"], ["c0:2", "c1:2"], ["c2:2"]]
    assert lines["valid_until"].to_list() == [*lines["valid_from"].to_list()[1:], None]
    assert lines["persona_line_id"].n_unique() == 3


def test_only_feedback_and_opening_requests_count() -> None:
    rows = [("u", 1, 2, "Use bullet points.", "continuation"), ("u", 2, 1, "How do I cook rice? Keep it short.", None)]
    assert persona_lines(*messages(rows))["slot"].to_list() == ["length"]
    assert persona_lines(*messages([])).equals(PERSONAS.empty())


def test_evidence_is_capped_to_the_latest() -> None:
    lines = persona_lines(*messages([("u", hour, 2, "Too long.", WANTED) for hour in range(12)])).sort("valid_from")
    assert lines["evidence"][-1].to_list() == [f"c{i}:2" for i in range(12 - MAX_EVIDENCE, 12)]


def test_of_wishes_at_the_same_moment_the_later_stands_and_keys_stay_unique() -> None:
    lines = persona_lines(*messages([("u", 1, 2, "Too long.", WANTED), ("u", 1, 2, "too short", WANTED), ("u", 1, 2, "Longer.", WANTED)]))
    assert lines["line"].to_list() == ["Prefers long, detailed answers."]
    assert lines["evidence"].to_list() == [["c1:2", "c2:2"]]


@pytest.mark.parametrize("seed", range(8))
def test_no_persona_uses_the_message_itself_or_a_later_one(seed: int) -> None:
    turns, labels = random_town(seed)
    conversations, said_at = with_last_words(turns, seed)
    lines = persona_lines(timed(turns, conversations), labels)
    assert lines["persona_line_id"].is_unique().all()
    evidence = dict(lines.select("persona_line_id", "evidence").iter_rows())
    moments = turns.select("turn_id", "user_id", "asked_at").collect()
    shown = personas_at(lines, moments)
    for row in shown.iter_rows(named=True):
        cited = [turn_id for line in row["persona_line_ids"] for turn_id in evidence[line]]
        assert all(said_at[turn_id] < row["asked_at"] for turn_id in cited)
        assert row["turn_id"] not in cited
    assert shown["persona_line_ids"].list.len().sum() > 0
    last_words = conversations.filter("has_last_word").select(pl.col("messages").list.last().struct.field("message_id"))
    assert set(last_words.collect().to_series()) & {turn_id for cited in evidence.values() for turn_id in cited}


@pytest.mark.parametrize("seed", range(4))
def test_a_persona_does_not_change_when_later_messages_arrive(seed: int) -> None:
    turns, labels = random_town(seed)
    cut = START + timedelta(hours=30)
    moments = turns.filter(pl.col("asked_at") <= cut).select("turn_id", "user_id", "asked_at").collect()
    early = persona_lines(turns.filter(pl.col("asked_at") <= cut), labels)
    assert personas_at(early, moments).equals(personas_at(persona_lines(turns, labels), moments))


@pytest.mark.parametrize("seed", range(4))
def test_snapshots_agree_with_the_definition(seed: int) -> None:
    turns, labels = random_town(seed)
    lines = persona_lines(turns, labels)
    moments = turns.select("asked_at", "user_id", "turn_id").collect().sample(fraction=1.0, shuffle=True, seed=seed)
    shown = personas_at(lines, moments)
    assert shown.drop("persona", "persona_line_ids").equals(moments)
    for row in shown.iter_rows(named=True):
        t = row["asked_at"]
        still = pl.col("valid_until").is_null() | (pl.col("valid_until") >= t)
        valid = lines.filter((pl.col("user_id") == row["user_id"]) & (pl.col("valid_from") < t) & still).sort("slot")
        assert row["persona_line_ids"] == valid["persona_line_id"].to_list()
        assert row["persona"] == render(valid["line"].to_list())


def test_a_persona_without_lines_is_empty_and_rendering_is_one_line_each() -> None:
    moments = pl.DataFrame({"user_id": ["u"], "asked_at": [START]}, schema_overrides={"asked_at": TIME})
    shown = personas_at(PERSONAS.empty(), moments)
    assert shown.row(0) == ("u", START, "", [])
    assert shown.schema["persona_line_ids"] == pl.List(pl.String)
    assert render([]) == ""
    assert render(["Prefers short answers.", "Prefers bullet points."]) == "- Prefers short answers.\n- Prefers bullet points."


def test_a_line_that_ended_is_not_shown_and_overlaps_are_refused() -> None:
    lines = persona_lines(*messages([("u", 1, 2, "Too long.", WANTED), ("u", 5, 2, "Longer.", WANTED)])).sort("valid_from")
    moments = pl.DataFrame({"user_id": ["u"], "asked_at": [START + timedelta(hours=4)]}, schema_overrides={"asked_at": TIME})
    ended = lines.head(1).with_columns(valid_until=pl.lit(START + timedelta(hours=2)).cast(TIME))
    assert personas_at(ended, moments)["persona"].to_list() == [""]
    with pytest.raises(ValueError, match="overlap"):
        personas_at(lines.with_columns(valid_until=pl.lit(None, TIME)), moments)
    with pytest.raises(ValueError, match="user_id"):
        personas_at(lines, moments.with_columns(user_id=pl.lit(None, pl.String)))


def test_wishes_quote_the_words_that_say_them() -> None:
    lines = persona_lines(*messages([("u", 1, 2, "Sorry, that is  far too long. Use bullet points.", WANTED)])).sort("slot")
    assert lines["quotes"].to_list() == [["Use bullet points"], ["too long"]]
    assert lines["writer"].unique().to_list() == ["extractive"]
    assert lines["call_id"].null_count() == len(lines)


def lines_of(rows: list[tuple[str, int, int, str, str | None]], **settings: Any) -> list[tuple[str, int, list[str]]]:
    lines = persona_lines(*messages(rows), **settings).sort("valid_from", "slot")
    return [(line, since.hour, cited) for line, since, cited in lines.select("line", "valid_from", "evidence").iter_rows()]


def test_a_wish_makes_a_line_once_it_was_said_in_a_second_conversation() -> None:
    rows = [("u", 1, 2, "Too long.", WANTED), ("u", 2, 2, "Use bullet points.", WANTED), ("u", 3, 2, "Shorter!", WANTED)]
    assert lines_of(rows, wish_conversations=2) == [("Prefers short answers.", 3, ["c0:2", "c2:2"])]
    assert lines_of(rows, wish_conversations=3) == []


def test_in_one_conversation_a_wish_is_said_once_however_often() -> None:
    turns, labels = messages([("u", 1, 2, "Too long.", WANTED), ("u", 2, 3, "Still too long.", WANTED)])
    one = turns.with_columns(conversation_id=pl.lit("c"))
    assert persona_lines(one, labels, wish_conversations=2).is_empty()
    assert len(persona_lines(turns, labels, wish_conversations=2)) == 1


def test_a_wish_that_is_said_to_hold_in_general_needs_no_second_conversation() -> None:
    rows = [("u", 1, 2, "From now on keep your answers short.", WANTED), ("u", 2, 2, "More formal, please.", WANTED)]
    assert lines_of(rows, wish_conversations=2) == [("Prefers short answers.", 1, ["c0:2"])]


def test_a_single_wish_to_the_contrary_leaves_a_line_and_a_repeated_one_replaces_it() -> None:
    rows = [
        ("u", 1, 2, "Too long.", WANTED),
        ("u", 2, 2, "Shorter!", WANTED),
        ("u", 3, 2, "Longer, please.", WANTED),
        ("u", 4, 2, "too short", WANTED),
        ("u", 5, 2, "Too long.", WANTED),
    ]
    found = lines_of(rows, wish_conversations=2)
    assert found == [("Prefers short answers.", 2, ["c0:2", "c1:2"]), ("Prefers long, detailed answers.", 4, ["c2:2", "c3:2"])]


def test_a_request_that_is_sent_again_in_another_conversation_is_one_wish() -> None:
    request = "Tell me about the moons of Jupiter in simple words."
    rows: list[tuple[str, int, int, str, str | None]] = [("u", 1, 1, request, None), ("u", 2, 1, request, None)]
    assert lines_of(rows, wish_conversations=2) == []
    rows.append(("u", 3, 1, "Tell me about comets in simple words.", None))
    assert lines_of(rows, wish_conversations=2) == [("Prefers simple words.", 3, ["c0:1", "c2:1"])]


def test_a_request_for_something_new_later_in_a_conversation_counts_as_an_opening_one_does() -> None:
    rows = [
        ("u", 1, 2, "How do I sort a list in Python?", "new_request"),
        ("u", 2, 3, "Write a Python script that renames files.", "new_request"),
    ]
    assert lines_of(rows, wish_conversations=2) == [("Prefers code in Python.", 2, ["c0:2", "c1:3"])]


def conversations_in(*languages: str | None) -> tuple[pl.LazyFrame, pl.LazyFrame, pl.LazyFrame]:
    """One user's conversations of two messages each, hour by hour."""
    turns, labels = messages([("u", hour, 1, "How?", None) for hour in range(len(languages))])
    second = turns.with_columns(
        turn=pl.lit(2, pl.Int32), turn_id=pl.format("c{}:2", "n"), asked_at=pl.col("asked_at") + timedelta(minutes=30)
    )
    told = pl.LazyFrame(
        {"conversation_id": [f"c{n}" for n in range(len(languages))], "language": languages}, schema_overrides={"language": pl.String}
    )
    return pl.concat([turns, second]), labels, told


def test_languages_are_told_once_they_say_something_and_from_the_end_of_a_conversation_on() -> None:
    turns, labels, told = conversations_in(
        "English", "English", "Spanish", None, "Nolang", "Dutch", "English", "English", "English", "English"
    )
    lines = written(turns, labels, told, extracts=("languages",)).lines.sort("valid_from")
    assert lines["line"].to_list() == ["Writes in English and Spanish.", "Writes in Dutch, English and Spanish."]
    # Of six, one in Spanish and one in Dutch are too few each, and English alone says nothing.
    assert lines["valid_until"].to_list() == [START + timedelta(hours=hour, minutes=30) for hour in (5, 7)]
    assert lines["evidence"][0].to_list() == ["c1:1", "c2:1"]
    assert lines["quotes"][0].to_list() == [None, None]
    assert lines["valid_from"][0] == START + timedelta(hours=2, minutes=30)


def test_the_language_that_lines_are_written_in_is_no_news() -> None:
    assert written(*conversations_in("English", "English"), extracts=("languages",)).lines.is_empty()
    assert written(*conversations_in("English"), extracts=("languages",), language="Spanish").lines["line"].to_list() == [
        "Writes in English."
    ]
    assert written(*conversations_in(None, "unknown", " "), extracts=("languages",)).lines.is_empty()


def by_word(texts: Sequence[str]) -> np.ndarray:
    """Vectors in which a text is near the first description of the domain that it names, and near nothing if it names none."""
    first = {described[0]: name for name, described in DOMAINS.items()}
    vectors = np.zeros((len(texts), len(DOMAINS) + 1), np.float32)
    for row, text in enumerate(texts):
        named = [n for n, name in enumerate(DOMAINS) if name in (text, first.get(text)) or text.startswith(f"{name}:")]
        vectors[row, named[0] if named else -1] = 1.0
    return vectors


def asked(*texts: str) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    return messages([("u", hour, 1, text, None) for hour, text in enumerate(texts)])


def test_a_domain_needs_three_different_requests_and_cites_them() -> None:
    turns, labels = asked(
        "travel: what about a",
        "travel: what about b",
        "travel: what about a",
        "other",
        "travel: what about c",
        "games: what about a",
        "travel: what about d",
    )
    lines = written(turns, labels, embed=by_word, extracts=("domains",)).lines
    assert lines["line"].to_list() == ["Often asks about travel."]
    assert lines["valid_from"].to_list() == [START + timedelta(hours=4)]
    assert lines["evidence"].to_list() == [["c0:1", "c1:1", "c4:1"]]
    assert lines["valid_until"].to_list() == [None]


def test_a_line_names_the_most_frequent_domains_that_fit() -> None:
    often = [
        f"{name}: what about {n}" for name, times in (("travel", 5), ("games", 4), ("health", 3), ("fiction", 6)) for n in range(times)
    ]
    lines = written(*asked(*often), embed=by_word, extracts=("domains",)).lines.sort("valid_from")
    assert lines["line"].to_list()[-2:] == ["Often asks about games, health and travel.", "Often asks about fiction, games and travel."]
    short = written(*asked(*often), embed=by_word, extracts=("domains",), max_line_characters=30).lines.sort("valid_from")
    assert short["line"].to_list()[0] == "Often asks about travel."
    assert short["line"].str.len_chars().max() <= 30


def test_nobody_embeds_for_users_with_too_few_requests() -> None:
    assert written(
        *asked("travel: what about a", "travel: what about b", "travel: what about b"), embed=nothing, extracts=("domains",)
    ).lines.is_empty()


def test_of_too_many_lines_those_supported_last_stay() -> None:
    rows = [("u", 1, 2, "Too long.", WANTED), ("u", 2, 2, "Use bullet points.", WANTED), ("u", 3, 2, "Be more friendly.", WANTED),
            ("u", 4, 2, "too long", WANTED)]  # fmt: skip
    found = written(*messages(rows), extracts=("wishes",), max_lines=2)
    ends = {
        (slot, since.hour): until and until.hour
        for slot, since, until in found.lines.select("slot", "valid_from", "valid_until").iter_rows()
    }
    assert ends == {("length", 1): 3, ("format", 2): 4, ("tone", 3): None, ("length", 4): None}
    assert found.dropped == {Dropped.LINE_GAVE_WAY: 2}


def test_lines_that_are_too_long_are_counted() -> None:
    found = written(*messages([("u", 1, 2, "Too short.", WANTED)]), extracts=("wishes",), max_line_characters=20)
    assert found.lines.is_empty()
    assert found.dropped == {Dropped.LINE_TOO_LONG: 1}


EVERYTHING = [
    *TEXTS,
    "travel: what about a",
    "travel: what about b",
    "travel: what about c",
    "travel: what about d",
    "games: what about a",
    "games: what about b",
    "games: what about c",
]
LANGUAGE = st.sampled_from(["English", "Spanish", "Dutch", None])
MESSAGE = st.tuples(
    st.sampled_from(["u", "v"]),
    st.integers(0, 12),
    st.integers(1, 3),
    st.sampled_from(EVERYTHING),
    st.sampled_from([WANTED, "continuation"]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(MESSAGE, max_size=25), st.lists(LANGUAGE, min_size=25, max_size=25), st.integers(0, 13), st.integers(1, 3))
def test_logs_cut_at_any_moment_give_the_lines_of_that_moment(
    rows: list[tuple[str, int, int, str, str]], told: list[str | None], hour: int, max_lines: int
) -> None:
    turns, labels = messages([(user, at, turn, text, label if turn > 1 else None) for user, at, turn, text, label in rows])
    languages = pl.DataFrame({"conversation_id": [f"c{n}" for n in range(25)], "language": told}, schema_overrides={"language": pl.String})
    cut = START + timedelta(hours=hour)
    early = turns.filter(pl.col("asked_at") <= cut)
    # The source tells a language from the whole conversation: of one that goes on after the cut nothing is known yet.
    over = languages.join(turns.filter(pl.col("asked_at") > cut).collect(), on="conversation_id", how="anti")
    moments = pl.DataFrame({"user_id": ["u", "v"], "asked_at": [cut, cut]}, schema_overrides={"asked_at": TIME})
    then = written(early, labels, over.lazy(), by_word, max_lines=max_lines).lines
    full = written(turns, labels, languages.lazy(), by_word, max_lines=max_lines).lines
    assert personas_at(then, moments).equals(personas_at(full, moments))
    assert personas_at(full, moments)["persona_line_ids"].list.len().max() <= max_lines
    assert not any(faults(full.lazy(), turns).values())


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Write a Python function that reverses a list of numbers.", "programming"),
        ("How long do I bake a chicken, and with which spices?", "food and cooking"),
        ("Write me a short poem about the sea at night.", "poems and songs"),
        ("Hello there, how are you today?", None),
        ("Python", None),
        ("Escribe una función en Python que invierta una lista.", None),
        ("sql server management studio: достоинства и недостатки", None),
    ],
)
def test_requests_are_told_by_a_real_encoder(text: str, domain: str | None) -> None:
    assert domains_of([text, text], MiniLM().embed) == [domain, domain]
