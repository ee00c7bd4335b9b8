"""What is replaced in messages, what is left alone, and that nothing found remains."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from rlhi_dagster.conversations.entities import load
from rlhi_dagster.conversations.redaction import EntitySettings, Kind, RedactionSettings, redact

# Made up, and put together here so that no scanner takes this file for a leak.
TOKEN = "A1b2" * 12
KEYS = {
    "openai": "sk-" + TOKEN,
    "anthropic": "sk-ant-api03-" + TOKEN,
    "aws": "AKIA" + "ABCD2345" * 2,
    "github": "ghp_" + TOKEN,
    "github, fine-grained": "github_pat_" + TOKEN,
    "gitlab": "glpat-" + TOKEN,
    "slack": "xoxb-" + TOKEN,
    "google": "AIza" + TOKEN[:35],
    "hugging face": "hf_" + TOKEN,
    "stripe": "sk_live_" + TOKEN,
    "json web token": f"eyJ{TOKEN}.eyJ{TOKEN}.{TOKEN}",
    "telegram": "123456789:AA" + TOKEN[:33],
    "private key": "-----BEGIN RSA " + f"PRIVATE KEY-----\n{TOKEN}\n{TOKEN}\n-----END RSA " + "PRIVATE KEY-----",
}
FOUND = [
    *((Kind.KEY, name, key, "<KEY>") for name, key in KEYS.items()),
    (Kind.KEY, "bearer", f"Authorization: Bearer {TOKEN}", "Authorization: Bearer <KEY>"),
    (Kind.KEY, "password in a URL", "postgres://ann:hunter22@db.local:5432/x", "postgres://<KEY>@db.local:5432/x"),
    (Kind.EMAIL, "plain", "ann.lee+x@mail.co.uk", "<EMAIL>"),
    (Kind.EMAIL, "in a link", "mailto:ann@lee.org>", "mailto:<EMAIL>>"),
    (Kind.CARD, "visa in groups", "4539 1488 0343 6467", "<CARD>"),
    (Kind.CARD, "mastercard", "5425233430109903", "<CARD>"),
    (Kind.CARD, "mastercard, new range", "2223-0031-2200-3222", "<CARD>"),
    (Kind.CARD, "american express", "3782 822463 10005", "<CARD>"),
    (Kind.PHONE, "international", "+44 20 7946 0958", "<PHONE>"),
    (Kind.PHONE, "international, unbroken", "+4915123456789", "<PHONE>"),
    (Kind.PHONE, "north american", "(212) 736-5000", "<PHONE>"),
    (Kind.PHONE, "north american, dots", "212.736.5000", "<PHONE>"),
    (Kind.IP_ADDRESS, "version 4", "93.184.216.34", "<IP_ADDRESS>"),
    (Kind.IP_ADDRESS, "version 6", "2606:2800:220:1:248:1893:25c8:1946", "<IP_ADDRESS>"),
]
LEFT = [
    "version 1.2.3.4 of the driver",
    "127.0.0.1, 192.168.1.1, 10.0.0.1, 0.0.0.0/0, 255.255.255.0 and 203.0.113.7",
    "2001:db8::1 is for documentation, std::vector<int> and 12:30:45 are not addresses",
    "3.141592653589793 and 1618033988749894",
    "4539 1488 0343 6468 has a wrong check digit; 4444 4444 4444 4448 repeats; 4539-1488 0343 6467 mixes",
    "2023-04-01, 10.04.2023, ISBN 978-3-16-148410-0, 1,000,000.00",
    "f(+1 234 567)",
    "+180 days, +12 345",
    "@decorator, user@localhost, a @ b.c, git rev HEAD@{1}",
    "sk-learn, sk-estimator-with-long-words-only, task-list, hf_hub, Bearer of good news, ghp_short",
    "rtsp://username:password@your_camera_ip:554/stream",
    "https://example.org/a:b and http://host:8080/@name",
    "deadbeefdeadbeefdeadbeefdeadbeef",
]


def one(text: str, **settings: object) -> tuple[str, list[str]]:
    texts, kinds = redact(pl.Series("content", [text]), RedactionSettings(**settings))
    return texts[0], kinds[0].to_list()


@pytest.mark.parametrize(("kind", "name", "text", "expected"), FOUND, ids=lambda value: str(value)[:24])
def test_it_is_replaced_and_its_surroundings_are_not(kind: Kind, name: str, text: str, expected: str) -> None:
    assert one(f"Ask, {text} and (again: {text})") == (f"Ask, {expected} and (again: {expected})", [kind.value] * 2)
    others = tuple(each for each in Kind if each is not kind)
    assert one(text, kinds=()) == (text, [])
    assert kind.value not in one(text, kinds=others)[1]


@pytest.mark.parametrize("text", LEFT)
def test_it_is_left_alone(text: str) -> None:
    assert one(text) == (text, [])


def test_rows_stay_in_place_and_nulls_stay_null() -> None:
    texts = pl.Series("content", ["a", None, "x@y.org", "", "b", "call +44 20 7946 0958 or x@y.org"])
    found, kinds = redact(texts, RedactionSettings())
    assert found.to_list() == ["a", None, "<EMAIL>", "", "b", "call <PHONE> or <EMAIL>"]
    assert kinds.to_list() == [[], [], ["email"], [], [], ["email", "phone"]]
    assert found.name == "content"


PIECES = st.sampled_from([text for _, _, text, _ in FOUND] + LEFT)


@given(st.lists(st.one_of(PIECES, st.text(max_size=30)), max_size=6), st.sampled_from(["", " ", "\n", ", "]))
def test_what_was_replaced_is_not_found_again(pieces: list[str], between: str) -> None:
    once, kinds = one(between.join(pieces))
    assert one(once) == (once, [])
    assert bool(kinds) == (once != between.join(pieces))


@given(st.lists(st.text(alphabet=st.sampled_from("+(.-) 0123456789@:/abAeyJ_sk"), max_size=80), max_size=5))
def test_one_text_does_not_depend_on_the_others(texts: list[str]) -> None:
    together, _ = redact(pl.Series("t", texts, dtype=pl.String), RedactionSettings())
    assert together.to_list() == [one(text)[0] for text in texts]


@pytest.fixture
def pipeline(tmp_path: Path) -> EntitySettings:
    """A spaCy pipeline that knows two names."""
    made = spacy.blank("en")
    ruler = made.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}, {"label": "GPE", "pattern": "Oslo"}])  # type: ignore[attr-defined]
    made.to_disk(tmp_path / "names")
    return EntitySettings(pipeline=str(tmp_path / "names"))


def test_named_entities_are_replaced_by_their_label(pipeline: EntitySettings) -> None:
    texts = pl.Series(["Ann Lee of Oslo, ann@lee.org, says hi to Ann Lee", "nobody", None])
    found, kinds = redact(texts, RedactionSettings(entities=pipeline), load(pipeline))
    assert found.to_list() == ["<PERSON> of Oslo, <EMAIL>, says hi to <PERSON>", "nobody", None]
    assert kinds.to_list() == [["email", "person", "person"], [], []]


def test_a_pipeline_that_cannot_be_used_is_named(pipeline: EntitySettings) -> None:
    with pytest.raises(ValueError, match=r"no_such_pipeline is neither installed nor a folder: python -m spacy download no_such_pipeline"):
        load(EntitySettings(pipeline="no_such_pipeline"))
    with pytest.raises(ValueError, match="does not tell PRESON; it tells GPE, PERSON"):
        load(pipeline.model_copy(update={"labels": ("PRESON",)}))
