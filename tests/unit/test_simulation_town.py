"""The sample town: the committed bytes, the schema, what occurs in it, and styles that can be read back."""

from __future__ import annotations

import hashlib
import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlhi_dagster.base.tables import PERSONAS
from rlhi_dagster.conversations.ingest import ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, month_counts
from rlhi_dagster.conversations.splits import SplitSettings
from rlhi_dagster.conversations.turns import turns as turns_of
from rlhi_dagster.conversations.users import users as users_of
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.personas.snapshots import personas_at
from rlhi_dagster.preferences.explicit_pairs import explicit_pairs
from rlhi_dagster.preferences.settings import ExplicitPairSettings
from rlhi_dagster.simulation.town.__main__ import write
from rlhi_dagster.simulation.town.clicks import Clicking
from rlhi_dagster.simulation.town.content import TOPICS
from rlhi_dagster.simulation.town.dialogue import ASKS, Habits, converse
from rlhi_dagster.simulation.town.logs import Town, TownSettings, build
from rlhi_dagster.simulation.town.style import ASPECTS, VALUES, Reply, Style, read, render, topic_of
from rlhi_dagster.simulation.town.truth import verdict
from rlhi_dagster.simulation.wildchat import CLICKS, WILDCHAT_SCHEMA, Click

SAMPLE = Path(__file__).parents[2] / "data/sample"
REAL = Path(__file__).parents[2] / "../shared/data/wildchat/wildchat_sample.parquet"
ASKED = {text: wish for wish, texts in ASKS.items() for text in texts}
STYLES = [Style(*(VALUES[aspect][bits >> k & 1] for k, aspect in enumerate(ASPECTS))) for bits in range(16)]
PERSON = ["hashed_ip", "accept-language", "user-agent"]


@pytest.fixture(scope="module")
def town() -> Town:
    return build(TownSettings())


def connections(town: Town) -> pl.DataFrame:
    """The logs with the header's fields as columns, each conversation once."""
    return town.logs.unnest("header").drop_nulls("conversation_hash").unique("conversation_hash", keep="any")


def digests(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def test_the_committed_sample_is_regenerated_bit_for_bit(tmp_path: Path) -> None:
    write(tmp_path, TownSettings())
    assert len(digests(tmp_path)) == 7
    assert digests(tmp_path) == {name: digest for name, digest in digests(SAMPLE).items() if not name.startswith("town-policy/")}


def test_the_sample_is_small() -> None:
    assert sum(file.stat().st_size for file in SAMPLE.rglob("*") if file.is_file()) <= 6_000_000


def test_another_seed_gives_another_town(town: Town) -> None:
    small = TownSettings(users=5, months=1)
    assert build(small).logs.equals(build(small).logs)
    assert not build(small).logs.equals(build(TownSettings(seed=8, users=5, months=1)).logs)


def test_the_logs_have_wildchats_columns(town: Town) -> None:
    assert town.logs.schema == pl.read_parquet_schema(SAMPLE / "wildchat.parquet") == WILDCHAT_SCHEMA


def test_the_schema_is_the_published_one() -> None:
    if not REAL.is_file():
        pytest.skip("no sample of WildChat-1M beside the repository")
    assert pl.read_parquet_schema(REAL) == dict(WILDCHAT_SCHEMA)


def test_the_logs_span_six_months(town: Town) -> None:
    whole = town.logs.join(town.labels, on="conversation_hash", how="semi")
    assert sorted(whole["timestamp"].dt.strftime("%Y-%m").unique()) == [f"2023-{month:02d}" for month in range(4, 10)]


def test_every_label_of_the_codebook_occurs(town: Town) -> None:
    counts = dict(town.labels["label"].value_counts().iter_rows())
    assert set(counts) == {label.value for label in Feedback}
    assert min(counts.values()) >= 20


def test_labels_name_user_messages_after_the_first(town: Town) -> None:
    said = town.logs.unique("conversation_hash").select("conversation_hash", "conversation").join(town.labels, on="conversation_hash")
    roles = said.select(pl.col("conversation").list.get(pl.col("message_index")).struct.field("role"))["role"]
    assert len(said) == len(town.labels)
    assert set(roles) == {"user"}
    assert town.labels["message_index"].min() == 2


def test_every_kind_of_broken_row_is_there(town: Town) -> None:
    first = pl.col("conversation").list.first().struct
    shows = {
        "no_messages": pl.col("conversation").is_null(),
        "no_id": pl.col("conversation_hash").is_null(),
        "unknown_role": first.field("role") == "narrator",
        "assistant_first": first.field("role") == "assistant",
        "empty_message": first.field("content").str.strip_chars() == "",
        "too_long": first.field("content").str.len_chars() > 100_000,
        "from_the_past": pl.col("timestamp").dt.year() < 2000,
        "from_the_future": pl.col("timestamp").dt.year() > 2100,
        "duplicate": pl.col("conversation_hash").is_not_null() & ~pl.col("conversation_hash").is_first_distinct(),
        "toxic": pl.col("toxic"),
        "unanswered": pl.col("conversation").list.len() == 1,
    }
    seen = {damage: len(town.logs.filter(condition)) for damage, condition in shows.items()}
    # Cutting the first message off a conversation of one reply leaves one message, so those two overlap.
    assert {damage: count for damage, count in seen.items() if damage != "unanswered"} == {
        damage: count for damage, count in town.broken.items() if damage != "unanswered"
    }
    assert seen["unanswered"] >= town.broken["unanswered"] > 0


def test_users_have_two_to_forty_conversations(town: Town) -> None:
    per_user = town.preferences.head(TownSettings().users).join(connections(town), on=PERSON).group_by(PERSON).len()["len"]
    assert (len(per_user), per_user.min()) == (TownSettings().users, 2)
    assert per_user.max() <= 40
    assert per_user.max() > 20


def test_the_preference_of_everybody_who_may_be_asked_is_known(town: Town) -> None:
    ordinary = town.logs.filter(~pl.col("conversation").list.first().struct.field("content").str.contains("/paint").fill_null(value=False))
    people = ordinary.select("hashed_ip", pl.col("header").struct.unnest()).unique()
    assert len(people) > TownSettings().users
    assert people.join(town.preferences, on=PERSON, how="anti").is_empty()


def test_truth_is_not_in_the_logs(town: Town) -> None:
    named = {name for dtype in town.logs.schema.items() for name in str(dtype).split("'")}
    assert not {*ASPECTS, "label", "preference"} & (named - {"language"})


def preferred(town: Town) -> dict[str, Style]:
    """The preference of the user of each ordinary conversation."""
    rows = (
        connections(town)
        .join(town.preferences.head(TownSettings().users).rename({aspect: f"{aspect}_wanted" for aspect in ASPECTS}), on=PERSON)
        .to_dicts()
    )
    return {row["conversation_hash"]: Style(*(row[f"{aspect}_wanted"] for aspect in ASPECTS)) for row in rows}


def is_likely(hits: int, of: int, probability: float) -> bool:
    """Whether a count is within four standard deviations of a binomial's mean."""
    return abs(hits - of * probability) <= 4 * math.sqrt(of * probability * (1 - probability))


def test_clicks_change_nothing_that_is_said(town: Town) -> None:
    never = Clicking(thumbs=0, edits=0, regenerates=0)
    quiet = build(TownSettings(clicking=never))
    assert quiet.clicks == []
    assert quiet.logs.equals(town.logs)
    assert quiet.labels.equals(town.labels)
    assert build(TownSettings()).clicks == town.clicks


def test_users_click_as_often_and_as_wrongly_as_they_are_said_to(town: Town) -> None:
    habits, wanted = TownSettings().clicking, preferred(town)
    said = {row["conversation_hash"]: row["conversation"] for row in connections(town).to_dicts()}
    replies = [
        len(wanted[name].unmet(reply.style))
        for name in wanted
        for message in said[name]
        if message["role"] == "assistant" and (reply := read(message["content"]))
    ]
    by_kind = {kind: [click for click in town.clicks if click.kind == kind] for kind in ("thumb", "edit", "regeneration")}
    clear = sum(missed == 0 or missed >= 2 for missed in replies)
    counted = (("thumb", clear, habits.thumbs), ("edit", sum(map(bool, replies)), habits.edits), ("regeneration", len(replies), 0.1))
    for kind, chances, rate in counted:
        assert is_likely(len(by_kind[kind]), chances, rate), kind
    assert is_likely(sum(click.is_noise for click in by_kind["thumb"]), len(by_kind["thumb"]), habits.slips)
    edits = [click for click in by_kind["edit"] if len(wanted[click.conversation_id].unmet(_reply(said, click).style)) < 4]
    saves = sum(str(click.text).endswith("\n") for click in edits)
    assert is_likely(saves, len(edits), habits.saves)
    assert is_likely(sum(click.is_noise for click in edits), len(edits), habits.saves + habits.careless)
    empty = sum(click.text == "" for click in by_kind["regeneration"])
    same = sum(click.text == said[click.conversation_id][click.message_index]["content"] for click in by_kind["regeneration"])
    for count in (empty, same):
        assert is_likely(count, len(by_kind["regeneration"]), habits.fails / 2)
    told = sum(click.value is not None for click in by_kind["regeneration"])
    assert is_likely(told, len(by_kind["regeneration"]) - empty - same, habits.tells)


def test_a_click_is_noise_if_it_says_something_else_than_the_preference(town: Town) -> None:
    wanted = preferred(town)
    said = {row["conversation_hash"]: row["conversation"] for row in connections(town).to_dicts()}
    for click in town.clicks:
        preference, reply = wanted[click.conversation_id], _reply(said, click)
        here, there = (len(preference.unmet(each.style)) if each else 5 for each in (reply, read(click.text or "", reply.topic)))
        says = {"thumb": (here == 0) == (click.value == 1.0), "edit": there < here, "regeneration": here < there}
        assert says[click.kind] is not click.is_noise, click
        assert click.given_at > said[click.conversation_id][click.message_index]["timestamp"]
    assert 0.05 < sum(click.is_noise for click in town.clicks) / len(town.clicks) < 0.2


def test_pairs_of_clicks_agree_with_the_preference_as_often_as_they_are_said_to(town: Town, tmp_path: Path) -> None:
    town.logs.write_parquet(tmp_path / "logs.parquet")
    pl.DataFrame([click.row() for click in town.clicks], schema=CLICKS).write_parquet(tmp_path / "clicks.parquet")
    start = datetime(2023, 4, 1, tzinfo=UTC)
    settings = SourceSettings(name="town", kind=SourceKind.WILDCHAT, location=str(tmp_path), assumed_start=start)
    found = ingest(settings, list(month_counts(settings)), "salt")
    accepted = set(found.conversations["conversation_id"])
    assert len(found.explicit_feedback) == sum(click.conversation_id in accepted for click in town.clicks) > 2_000
    turns, users = turns_of(found.conversations), users_of(found.conversations.lazy(), SplitSettings(tuning=0.15, test=0.2))
    ids = pl.format("{}:{}", "conversation_hash", "message_index")
    known = turns.join(town.labels.select(turn_id=ids, label="label"), on="turn_id")
    labels = known.select("turn_id", "conversation_id", "turn", "label")
    pairs = explicit_pairs(found.explicit_feedback, turns, labels, users, PERSONAS.empty(), ExplicitPairSettings(), personas_at)
    noise = {f"{click.conversation_id}:{click.message_index}/{click.kind}/{click.text or ''}": click.is_noise for click in town.clicks}
    side = pl.when(pl.col("kind") == "edit").then("chosen").otherwise("rejected")
    reply = pl.col("feedback_id").str.extract("^([^/]+)/")
    told = pairs.with_columns(key=pl.format("{}/{}/{}", reply, "kind", side))
    told = told.with_columns(is_noise=pl.col("key").replace_strict(noise, return_dtype=pl.Boolean()))
    kept = told.filter("is_kept")
    shares = dict(kept.group_by("kind").agg(pl.col("is_noise").mean()).iter_rows())
    # What is left of the noise once saves without a change and failed tries are dropped.
    habits, edits = TownSettings().clicking, kept.filter(kind="edit")
    assert 0 < shares["edit"] < 0.2
    assert is_likely(int(edits["is_noise"].sum()), len(edits), habits.careless / (1 - habits.saves))
    strong, weak = (kept.filter(kind="regeneration", evidence=evidence)["is_noise"].mean() for evidence in ("strong", "weak"))
    assert isinstance(strong, float) and isinstance(weak, float)  # noqa: PT018
    assert strong < weak
    dropped = told.filter(~pl.col("is_kept"))
    assert {reason for reasons in dropped["drop_reasons"] for reason in reasons} >= {"contradicted", "empty_original", "identical_sides"}


def _reply(said: dict[str, Any], click: Click) -> Reply:
    found = read(said[click.conversation_id][click.message_index]["content"])
    assert found is not None
    return found


def test_users_ask_only_for_their_own_unmet_preference(town: Town) -> None:
    preferences = connections(town).join(town.preferences.rename({aspect: f"{aspect}_wanted" for aspect in ASPECTS}), on=PERSON)
    rows = preferences.join(town.labels, on="conversation_hash").to_dicts()
    asked = clarified = 0
    for row in rows:
        text = row["conversation"][row["message_index"]]["content"]
        if text in ASKED:
            aspect, value = ASKED[text]
            before = read(row["conversation"][row["message_index"] - 1]["content"])
            assert row["label"] == Feedback.REATTEMPT_WITH_FEEDBACK
            assert row[f"{aspect}_wanted"] == value
            assert before is not None
            assert before.style.value(aspect) != value
            asked += 1
        elif row["label"] == Feedback.REATTEMPT_WITH_FEEDBACK:
            assert text.startswith("No, I meant ")
            clarified += 1
    assert asked > 500
    assert clarified > 10


def test_an_assistant_that_complies_always_contents_a_user_who_always_asks() -> None:
    habits = Habits(asks=1.0, states=0.0, complies=1.0, stays=0.0)
    for style in STYLES:
        rng = random.Random(3)
        opening = Style.draw(rng)
        messages = converse(style, habits, rng, opening)
        last = read(messages[-1].content)
        assert last is not None
        assert last.style == style
        assert len(messages) == 2 + 2 * len(style.unmet(opening))


def test_a_content_user_never_asks_for_a_change() -> None:
    habits = Habits(asks=1.0, stays=0.0)
    assert all(len(converse(style, habits, random.Random(seed), style)) == 2 for seed, style in enumerate(STYLES))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name[0])
def test_every_reply_reads_back(topic: object) -> None:
    for style in STYLES:
        for first_fact in (0, 1):
            text = render(topic, style, first_fact)  # type: ignore[arg-type]
            assert read(f" {text}\n", topic) == Reply(style, topic, first_fact)  # type: ignore[arg-type]
            assert (alone := read(text)) is not None
            assert alone.style == style


def test_a_reply_about_another_topic_does_not_count() -> None:
    assert read(render(TOPICS[0], STYLES[0]), TOPICS[1]) is None


def test_no_tampered_reply_is_read() -> None:
    rng = random.Random(11)
    for topic in TOPICS:
        for style in STYLES:
            text = render(topic, style)
            at = rng.randrange(len(text))
            assert read(text[:at] + text[at + 1 :]) is None
            assert read(f"{text[:at]}~{text[at:]}") is None
            assert read(f"{text} {text}") is None
            assert read(text[:-1]) is None
            assert read(text.swapcase()) is None


def test_every_request_names_its_topic() -> None:
    for topic in TOPICS:
        assert [topic_of(topic.request(wording)) for wording in range(4)] == [topic] * 4


def test_a_verdict_counts_met_preferences_and_spots_broken_text() -> None:
    topic, style = TOPICS[3], STYLES[5]
    request = topic.request(0)
    assert verdict(style, request, render(topic, style)).preferences_met == 1.0
    turned = style.with_value("tone", "formal" if style.tone == "friendly" else "friendly")
    assert verdict(style, request, render(topic, turned)).preferences_met == 0.75
    broken = verdict(style, request, render(TOPICS[4], style))
    assert (broken.preferences_met, broken.is_malformed) == (0.0, True)
