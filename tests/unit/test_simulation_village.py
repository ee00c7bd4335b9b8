"""The village: checkers tell right from wrong, users are what their truth says, and rows follow from the replies that are kept."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster import profiles
from rlhi_dagster.conversations.sources.records import FeedbackKind
from rlhi_dagster.conversations.splits import Split, split_of
from rlhi_dagster.engines.base import ChatRequest
from rlhi_dagster.feedback import Aspect, Feedback
from rlhi_dagster.feedback.aspects import requests
from rlhi_dagster.preferences.criticism_fits import village_follow_up_applies, village_rewrite_meets
from rlhi_dagster.simulation.village import checkers, content, operator, replies, wordings
from rlhi_dagster.simulation.village.__main__ import write
from rlhi_dagster.simulation.village.dialogue import Manner
from rlhi_dagster.simulation.village.logs import Village, VillageSettings, build, fingerprint, topics
from rlhi_dagster.simulation.village.mending import mended, whole
from rlhi_dagster.simulation.village.preferences import VALUES, has_held_out_combination, unmet
from rlhi_dagster.simulation.village.truth import preference_at, preferences, verdict

SETTINGS = VillageSettings(users=24)
LIST = "Here is what you need:\n\n1. Wool.\n2. Needles.\n3. Time."
DATA = profiles.ROOT / "data" / "village"


def reply(request: ChatRequest) -> str:
    """One of a few replies, by what is asked."""
    texts = (LIST, "Just begin.", "- Wool\n- Needles", "Sure! Take wool, for example. What colour do you like?", "Knit on. " * 40)
    return texts[int(replies.request_id(request)[:6], 16) % len(texts)]


@pytest.fixture(scope="module")
def village() -> Village:
    return build(SETTINGS, reply)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Knit one, purl one.", "prose"),
        ("- wool\n- needles", "bullets"),
        ("Take:\n  * wool\n  * needles\n", "bullets"),
        ("• wool\n• needles", "bullets"),
        ("- **Wool**: soft\n- **Needles**: sharp", "bullets"),
        (LIST, "numbered"),
        ("1) Wool.\n2) Needles.", "numbered"),
        ("Step 1: buy wool.\nStep 2: knit.", "numbered"),
        ("**1.** Wool\n**2.** Needles", "numbered"),
        ("It was version 1. Then came version 2. Both work.", "prose"),
        ("The year was\n1984. It was cold.", "prose"),
        ("We met on 3. May and on 4. May.", "prose"),
        ("Use this:\n```\n- wool\n- needles\n1. a\n2. b\n```\nThat is all.", "prose"),
        ("- only one point", None),
        ("1. Wool:\n   - red\n   - blue\n2. Needles", None),
        ("Wool - the soft one - and needles.\n-5 degrees is too cold.\n-3 is better.", "prose"),
        ("---\nWool.\n---\n***\n", "prose"),
        ("He said:\n– no", None),
    ],
)
def test_a_form_is_told(text: str, form: str | None) -> None:
    assert checkers.form(text) == form


@pytest.mark.parametrize(
    ("aspect", "text", "value"),
    [
        (Aspect.CLOSING, "Take wool. What colour do you like?", "question"),
        (Aspect.CLOSING, "What colour do you like? Take your time.", "statement"),
        (Aspect.CLOSING, "**What colour do you like?** 😊\n", "question"),
        (Aspect.CLOSING, 'Ask yourself: "Why?"', "statement"),
        (Aspect.CLOSING, "Take wool (or cotton?)", "question"),
        (Aspect.CLOSING, "", "statement"),
        (Aspect.EXCLAMATION, "Enjoy!", "with"),
        (Aspect.EXCLAMATION, 'The sign says "Stop!" in red.', "with"),
        (Aspect.EXCLAMATION, "Check that `a != b`, or ```\nprint('Hi!')\n``` it.", "without"),
        (Aspect.EXCLAMATION, "![a picture](x.png) where a != b", "without"),
        (Aspect.EXAMPLES, "Take a soft wool, e.g. merino.", "with"),
        (Aspect.EXAMPLES, "For instance, merino.", "with"),
        (Aspect.EXAMPLES, "Such a wool is rare, as are good examples of it.", "without"),
        (Aspect.EXAMPLES, "It is an exemplary egg.", "without"),
        (Aspect.OPENING, "Knitting begins with wool.", "direct"),
        (Aspect.OPENING, "Sure, here you go. Take wool.", "preamble"),
        (Aspect.OPENING, "Surely wool is best.", "direct"),
        (Aspect.OPENING, "What a great question. Take wool.", "preamble"),
        (Aspect.OPENING, "Great wool makes great socks.", "preamble"),
        (Aspect.OPENING, "There are three things:\n1. Wool\n2. Needles", "preamble"),
        (Aspect.OPENING, "**I'd be happy to help!** Take wool.", "preamble"),
        (Aspect.LENGTH, "word " * 40, "short"),
        (Aspect.LENGTH, "word " * 41, None),
        (Aspect.LENGTH, "word " * 55, "long"),
        (Aspect.LENGTH, "1. don't\n2. e.g. the mother-in-law's", "short"),
    ],
)
def test_an_aspect_is_told(aspect: Aspect, text: str, value: str | None) -> None:
    assert checkers.read(text)[aspect] == value


def test_words_are_counted_as_people_count_them() -> None:
    assert checkers.word_count("Don't use 2.5 cups, e.g. of flour.") == 7
    assert checkers.word_count("1. One\n2. Two **bold** words\n```\nnot this\n```") == 4


_WORDS = st.lists(st.text("abcdefgh", min_size=2, max_size=8), min_size=2, max_size=12)


@given(st.lists(_WORDS, min_size=2, max_size=6))
def test_what_is_written_as_a_list_is_read_as_one(points: list[list[str]]) -> None:
    said = [" ".join(words) for words in points]
    assert checkers.form("\n".join(f"- {each}." for each in said)) == "bullets"
    assert checkers.form("\n".join(f"{n}. {each}." for n, each in enumerate(said, 1))) == "numbered"
    assert checkers.form(" ".join(f"{each}." for each in said)) == "prose"
    assert checkers.word_count(" ".join(said)) == sum(map(len, points))


@given(_WORDS, st.sampled_from(["- a\n- b", "1. a\n2. b", "!", "for example", "Why?"]))
def test_code_is_never_read(words: list[str], code: str) -> None:
    plain = " ".join(words)
    assert checkers.read(f"{plain}.\n```\n{code}\n```\n{plain}.") == checkers.read(f"{plain}. {plain}.")


@given(st.text())
def test_every_text_has_a_reading(text: str) -> None:
    found = checkers.read(text)
    assert {aspect: value for aspect, value in found.items() if value is not None and value not in (*VALUES[aspect], "preamble")} == {}


def test_every_topic_fits_every_form_that_it_has() -> None:
    assert (len(content.ALL_TOPICS), len(set(content.ALL_TOPICS)), len(content.FORMS)) == (150, 150, 12)
    asked = {topic.request(form, wording) for topic in content.ALL_TOPICS for form in topic.forms for wording in (0, 1)}
    assert not [text for text in asked if "{" in text or text[-1] not in ".?"]
    with pytest.raises(ValueError, match="form write does not fit gravity"):
        content.Topic(content.Kind.THING, "gravity").request("write", 0)


def test_every_value_has_words_and_every_aspect_fifteen() -> None:
    values = [(aspect, value) for aspect, of in VALUES.items() for value in of]
    for words in (wordings.PLAIN, wordings.INDIRECT, wordings.IN_REQUEST):
        assert set(words) == set(values)
    for aspect, of in VALUES.items():
        said = [text for value in of for words in (wordings.PLAIN, wordings.INDIRECT) for text in words[aspect, value]]
        assert len(said) >= 15, aspect
    everything = [text for words in (wordings.PLAIN, wordings.INDIRECT) for texts in words.values() for text in texts]
    assert len(set(everything)) == len(everything)


def test_the_lexicon_never_hears_the_opposite_of_a_plain_wish() -> None:
    wrong = {
        text: heard.value
        for (aspect, value), texts in (*wordings.PLAIN.items(), *wordings.IN_REQUEST.items())
        for text in texts
        for heard in requests(text)
        if heard.aspect is aspect and heard.value != value
    }
    assert wrong == {}


def test_what_the_operator_shows_is_in_the_style() -> None:
    rng, wrong = random.Random(3), 0
    for _ in range(400):
        style = operator.drawn(rng)
        found = checkers.read(operator.demonstrated(style, rng.random())[1]["content"])
        wrong += sum(found[aspect] != value for aspect, value in style.items() if aspect is not Aspect.LENGTH)
    assert wrong == 0


def _users(village: Village) -> Iterable[tuple[str, dict[Aspect, str], Split]]:
    for row in village.preferences.to_dicts():
        user = fingerprint(row)
        yield user, {a: row[a.value] for a in VALUES if row[a.value]}, split_of(user, SETTINGS.split)


def test_training_users_have_no_combination_and_no_topic_that_is_held_out() -> None:
    village = build(VillageSettings(users=60), reply)
    sides = dict.fromkeys(Split, 0)
    for _, wanted, split in _users(village):
        sides[split] += has_held_out_combination(wanted)
    assert sides[Split.TRAIN] == 0 < sides[Split.TEST]
    of_user = {row["hashed_ip"]: split_of(fingerprint(row), SETTINGS.split) for row in village.preferences.to_dicts()}
    kept = {topic.name for topic in topics(SETTINGS)[1]}
    asked = village.logs.select("conversation_hash", "hashed_ip").join(village.conversations, on="conversation_hash")
    for row in asked.to_dicts():
        assert row["is_held_out_topic"] == (row["topic"] in kept)
        assert not (row["is_held_out_topic"] and of_user[row["hashed_ip"]] is Split.TRAIN)
    assert 0 < asked["is_held_out_topic"].sum() < len(asked) / 2


def test_the_same_replies_give_the_same_village_and_missing_ones_change_nothing_else(village: Village) -> None:
    again = build(SETTINGS, reply)
    assert again.logs.equals(village.logs)
    assert again.clicks.equals(village.clicks)

    lost = build(SETTINGS, lambda request: None if "bread" in request.messages[-1]["content"] else reply(request))
    assert lost.missing
    assert not village.missing
    kept = village.logs.filter(pl.col("conversation_hash").is_in(lost.logs["conversation_hash"].to_list()))
    assert kept.sort("conversation_hash").equals(lost.logs.sort("conversation_hash"))
    assert len(lost.logs) + len(lost.missing) == len(village.logs)

    fewer = build(replace(SETTINGS, users=9), reply).logs.sort("conversation_hash")
    assert fewer.equals(
        village.logs.filter(pl.col("conversation_hash").is_in(fewer["conversation_hash"].to_list())).sort("conversation_hash")
    )


def test_users_ask_for_what_the_reply_lacks(village: Village) -> None:
    said = {row["conversation_hash"]: row["conversation"] for row in village.logs.to_dicts()}
    wanted = village.labels.filter(pl.col("manner").is_in([Manner.PLAIN, Manner.INDIRECT]))
    assert len(wanted) > 50
    for row in wanted.to_dicts():
        messages = said[row["conversation_hash"]]
        assert checkers.CHECKERS[Aspect(row["aspect"])](messages[row["message_index"] - 1]["content"]) != row["value"]
        words = wordings.PLAIN if row["manner"] == Manner.PLAIN else wordings.INDIRECT
        assert messages[row["message_index"]]["content"] in words[Aspect(row["aspect"]), row["value"]]
    labels = {name for (name,) in village.labels.select("label").unique().iter_rows()}
    assert {Feedback.REATTEMPT_WITH_FEEDBACK, Feedback.POSITIVE, Feedback.NEW_REQUEST, Feedback.CONTINUATION} <= labels
    assert set(village.clicks["kind"]) == {kind.value for kind in (FeedbackKind.THUMB, FeedbackKind.EDIT, FeedbackKind.REGENERATION)}


def test_an_edit_meets_more_than_the_reply_and_says_nothing_new() -> None:
    wanted = {Aspect.LENGTH: "short", Aspect.FORMAT: "bullets", Aspect.OPENING: "direct", Aspect.EXCLAMATION: "without"}
    long = "Sure! Here are some tips: " + "Take soft wool! It is warm. " * 12 + "And then you"
    edit = mended(long, wanted, "knitting", lambda n: 0)
    assert edit is not None
    assert unmet(wanted, edit) == []
    assert set(edit.replace("-", " ").replace(".", " ").split()) <= set(long.replace("!", " ").replace(".", " ").split())
    assert mended("- Wool.\n- Needles.", wanted, "knitting", lambda n: 0) is None
    asked = mended("Wool is warm and", {Aspect.CLOSING: "question"}, "wool", lambda n: 0)
    assert asked == "Wool is warm and Would you like to hear more about wool?"
    assert whole("One. Two three") == "One."
    assert whole("1. Wool.\n2. Needles and\n3. ti") == "1. Wool.\n2. Needles and"
    assert whole("no end at all") == "no end at all"


def test_a_verdict_is_of_the_moment_and_broken_text_meets_nothing(tmp_path: Path) -> None:
    village = build(VillageSettings(users=60), reply)
    village.preferences.write_parquet(tmp_path / "preferences.parquet")
    known = preferences(tmp_path / "preferences.parquet", "the-village-is-public")
    changed = [versions for versions in known.values() if len(versions) == 2]
    assert changed
    since = changed[0][1][0]
    assert isinstance(since, datetime)
    before, after = (preference_at(changed[0], moment) for moment in (since - timedelta(seconds=1), since))
    assert before != after
    assert (before, after) == (changed[0][0][1], changed[0][1][1])

    wanted = {Aspect.FORMAT: "numbered", Aspect.OPENING: "direct"}
    assert verdict(wanted, "How?", LIST).preferences_met == 0.5
    assert verdict(wanted, "How?", "1. Wool.\n2. Needles.").preferences_met == 1.0
    assert verdict(wanted, "How?", "It is a classic. " * 9).is_malformed


def test_the_pair_judge_reads_replies_and_no_preferences() -> None:
    assert village_follow_up_applies("Use bullet points.", LIST) is True
    assert village_follow_up_applies("Number the steps.", LIST) is False
    assert village_follow_up_applies("This reads like a shopping list.", LIST) is None
    assert village_rewrite_meets("Use bullet points. No exclamation marks, please.", "- a\n- b!") is False
    assert village_rewrite_meets("Use bullet points.", "- a\n- b") is True


@pytest.mark.skipif(not (DATA / "wildchat.parquet").exists(), reason="the village's replies are not complete")
def test_the_data_that_comes_along_follows_from_its_replies(tmp_path: Path) -> None:
    write(tmp_path, VillageSettings(), DATA)
    for name in ("wildchat", "wildchat_feedback", "truth/preferences", "truth/conversations", "truth/labels", "truth/clicks"):
        assert pl.read_parquet(tmp_path / f"{name}.parquet").equals(pl.read_parquet(DATA / f"{name}.parquet")), name


def test_missing_replies_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"replies\.parquet lacks \d+ replies; --model FOLDER writes them"):
        write(tmp_path, SETTINGS, tmp_path)
