"""What is replaced in messages, what is left alone, and that nothing found remains."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import polars as pl
import pytest
import spacy
from hypothesis import given, settings
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
    (Kind.KEY, "basic", "Authorization: Basic " + base64.b64encode(b"ann:hunter22").decode(), "Authorization: Basic <KEY>"),
    (Kind.KEY, "header", f"X-API-Key: {TOKEN}", "X-API-Key: <KEY>"),
    (Kind.KEY, "web token in a word", f"id_tokeneyJ{TOKEN}.eyJ{TOKEN}.{TOKEN}", "id_token<KEY>"),
    (Kind.KEY, "assigned", f'MAPS_KEY="{TOKEN}"', 'MAPS_KEY="<KEY>"'),
    (Kind.KEY, "assigned password", "DB_PASSWORD=Sommer123!x", "DB_PASSWORD=<KEY>"),
    (Kind.KEY, "said password", "my password is hunter22!x", "my password is <KEY>"),
    (Kind.KEY, "said in Spanish", "mi contraseña es hunter22!x", "mi contraseña es <KEY>"),
    (Kind.KEY, "of a command", "curl -s -u ann:hunter22 https://x.org", "curl -s -u <KEY> https://x.org"),
    (Kind.KEY, "slack webhook", "https://hooks.slack" + ".com/services/T0/B0/" + TOKEN, "https://hooks.slack.com/services/<KEY>"),
    (Kind.KEY, "password in a URL", "postgres://ann:hunter22@db.local:5432/x", "postgres://<KEY>@db.local:5432/x"),
    (Kind.KEY, "password in a URL, no user", "redis://:hunter22@cache.local:6379/0", "redis://<KEY>@cache.local:6379/0"),
    (Kind.EMAIL, "plain", "ann.lee+x@mail.co.uk", "<EMAIL>"),
    (Kind.EMAIL, "in a link", "mailto:ann@lee.org>", "mailto:<EMAIL>>"),
    (Kind.EMAIL, "letters with accents", "jäne.doe@exämple.de", "<EMAIL>"),
    (Kind.EMAIL, "Cyrillic", "иван@почта.рф", "<EMAIL>"),
    (Kind.EMAIL, "a script with vowel signs", "उपयोगकर्ता@उदाहरण.भारत", "<EMAIL>"),
    (Kind.EMAIL, "Chinese", "用户@例子.公司", "<EMAIL>"),
    (Kind.EMAIL, "punycode", "ann@xn--exmple-cua.xn--p1ai", "<EMAIL>"),
    (Kind.EMAIL, "full width", "ann＠lee。org", "<EMAIL>"),
    (Kind.EMAIL, "within words without spaces", "邮箱是ann@lee.org谢谢", "邮箱是<EMAIL>谢谢"),
    (Kind.EMAIL, "with a word behind a colon", "ann@lee.org:hello", "<EMAIL>:hello"),
    (Kind.EMAIL, "with a port", "sip:ann@lee.org:5060", "sip:<EMAIL>:5060"),
    (Kind.EMAIL, "spelt out", "ann.lee (at) mail [dot] org", "<EMAIL>"),
    (Kind.EMAIL, "spelt in words", "ann.lee at mail dot co dot uk", "<EMAIL>"),
    (Kind.CARD, "of the makers' tests", "4111 1111 1111 1111", "<CARD>"),
    (Kind.CARD, "diners club", "3056 930902 5904", "<CARD>"),
    (Kind.BANK_ACCOUNT, "German", "DE89370400440532013000", "<BANK_ACCOUNT>"),
    (Kind.BANK_ACCOUNT, "in groups", "GB82 WEST 1234 5698 7654 32", "<BANK_ACCOUNT>"),
    (Kind.BANK_ACCOUNT, "behind another number", "XY99 GB82 WEST 1234 5698 7654 32", "XY99 <BANK_ACCOUNT>"),
    (Kind.IDENTITY_NUMBER, "US", "536-22-1857", "<IDENTITY_NUMBER>"),
    (Kind.IDENTITY_NUMBER, "US, plain", "SSN 536221857", "SSN <IDENTITY_NUMBER>"),
    (Kind.IDENTITY_NUMBER, "GB", "AB 12 34 56 C", "<IDENTITY_NUMBER>"),
    (Kind.IDENTITY_NUMBER, "ES", "12345678Z", "<IDENTITY_NUMBER>"),
    (Kind.IDENTITY_NUMBER, "BR", "390.533.447-05", "<IDENTITY_NUMBER>"),
    (Kind.IDENTITY_NUMBER, "passport", "passport no. C01234567", "passport no. <IDENTITY_NUMBER>"),
    (Kind.BIRTH_DATE, "form", "date of birth: 12.03.1985", "date of birth: <BIRTH_DATE>"),
    (Kind.BIRTH_DATE, "said", "I was born on March 12th, 1985", "I was born on <BIRTH_DATE>"),
    (Kind.MAC_ADDRESS, "colons", "3c:22:fb:4e:9a:1f", "<MAC_ADDRESS>"),
    (Kind.COORDINATES, "decimal", "my house is at 52.52001, 13.40495", "my house is at <COORDINATES>"),
    (Kind.COORDINATES, "degrees", "52°31'12\"N 13°24'18\"E", "<COORDINATES>"),
    (Kind.ADDRESS, "street", "12 Old Mill Road, Apt 4", "<ADDRESS>"),
    (Kind.ADDRESS, "German", "Lindenstraße 12", "<ADDRESS>"),
    (Kind.NAME, "said", "my name is Ann Lee", "my name is <NAME>"),
    (Kind.PHONE, "00", "0049 30 23125678", "<PHONE>"),
    (Kind.PHONE, "British", "020 7946 0958", "<PHONE>"),
    (Kind.PHONE, "French", "06 12 34 56 78", "<PHONE>"),
    (Kind.CARD, "visa in groups", "4539 1488 0343 6467", "<CARD>"),
    (Kind.CARD, "mastercard", "5425233430109903", "<CARD>"),
    (Kind.CARD, "mastercard, new range", "2223-0031-2200-3222", "<CARD>"),
    (Kind.CARD, "american express", "3782 822463 10005", "<CARD>"),
    (Kind.PHONE, "international", "+44 20 7946 0958", "<PHONE>"),
    (Kind.PHONE, "international, unbroken", "+4915123456789", "<PHONE>"),
    (Kind.PHONE, "north american", "(212) 736-5000", "<PHONE>"),
    (Kind.PHONE, "north american, dots", "212.736.5000", "<PHONE>"),
    (Kind.IP_ADDRESS, "version 4", "93.184.216.34", "<IP_ADDRESS>"),
    (Kind.IP_ADDRESS, "with a port", "93.184.216.34:8080", "<IP_ADDRESS>:8080"),
    (Kind.IP_ADDRESS, "small numbers with a port", "8.8.8.8:53", "<IP_ADDRESS>:53"),
    (Kind.IP_ADDRESS, "in a URL", "http://93.184.216.34:80/x", "http://<IP_ADDRESS>:80/x"),
    (Kind.IP_ADDRESS, "of a user", "ann@93.184.216.34:~", "ann@<IP_ADDRESS>:~"),
    (Kind.IP_ADDRESS, "behind a word", "IP:93.184.216.34", "IP:<IP_ADDRESS>"),
    (Kind.IP_ADDRESS, "before a colon", "93.184.216.34: down", "<IP_ADDRESS>: down"),
    (Kind.IP_ADDRESS, "version 6", "2606:2800:220:1:248:1893:25c8:1946", "<IP_ADDRESS>"),
    (Kind.IP_ADDRESS, "version 6 with a port", "[2606:4700::1111]:443", "[<IP_ADDRESS>]:443"),
    (Kind.IP_ADDRESS, "version 6 before a colon", "2606:4700::1111: down", "<IP_ADDRESS>: down"),
    (Kind.IP_ADDRESS, "version 4 within 6", "::ffff:93.184.216.34", "::ffff:<IP_ADDRESS>"),
]
LEFT = [
    "version 1.2.3.4 of the driver",
    "127.0.0.1, 192.168.1.1, 10.0.0.1, 0.0.0.0/0, 255.255.255.0 and 203.0.113.7",
    "2001:db8::1 is for documentation, std::vector<int> and 12:30:45 are not addresses",
    "3.141592653589793 and 1618033988749894",
    "4539 1488 0343 6468 has a wrong check digit; 0000 0000 0000 0000 repeats; 4539-1488 0343 6467 mixes",
    "DE89370400440532013001 has wrong check digits, as has 12345678A; 000-12-3456 is no number of anybody",
    "He was born on 14 March 1879 in Ulm. The password is required. My password is wrong. The password must have 8 characters.",
    'password = getpass.getpass("Password: "); token = request.headers["x-token-2"]; API_KEY="your-api-key-here"; max_tokens=4096',
    "Chrome/119.0.0.0, node==25.4.31.29 and v93.184.216.34",
    "00:11:22:33:44:55, 10:20:30:40:50:60, ff:ff:ff:ff:ff:ff and de:ad:be:ef:de:ad:be:ef",
    "[0.12345, 0.67890] and 1.2345, 2.3456, 3.4567",
    "docker run -u 1000:1000 nginx; look at line 42 dot product; my name is not important",
    "-----BEGIN CERTIFICATE----- and -----BEGIN " + "PRIVATE KEY----- are how they begin",
    "2023-04-01, 10.04.2023, ISBN 978-3-16-148410-0, 1,000,000.00",
    "f(+1 234 567)",
    "+180 days, +12 345",
    "@decorator, user@localhost, a @ b.c, git rev HEAD@{1}",
    "sk-learn, sk-estimator-with-long-words-only, task-list, hf_hub, Bearer of good news, ghp_short",
    "git clone git@github.com:org/repo.git && git push deploy@git.example.com:repo.git",
    "scp a.txt ann@host.example.com:notes bob@host.example.com:/tmp; rsync ann@host.example.com:~/dir .",
    "ssh://git@github.com/org/repo and https://user:password@example.com",
    "127.0.0.1:8080, [::1]:80, [fe80::1%eth0]:443, 192.168.1.10:22 and 10.0.0.1:5432",
    "clickhouse/clickhouse-server:23.8.14.6, 1.2.3.4:5",
    "rtsp://username:password@your_camera_ip:554/stream",
    "https://example.org/a:b and http://host:8080/@name",
    "deadbeefdeadbeefdeadbeefdeadbeef",
]


ODD = Path(__file__).parents[2] / "../shared/data/odd_inputs/D4_redaction/a.jsonl"
"""Texts by id; those that are not named here have nothing to replace."""
ODD_KINDS = {
    **dict.fromkeys(("r07", "r08", "r09"), "phone"),
    **dict.fromkeys(("r13", "r27", "r28"), "email"),
    **dict.fromkeys(("r30", "r32"), "identity_number"),
    **dict.fromkeys(("r14", "r15", "r16", "r18", "r22", "r24", "r25", "r34"), "key"),
    **dict.fromkeys(("r03", "r21"), "card"),
    "r31": "bank_account",
    "r26": "ip_address",
}


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


def test_odd_texts_are_redacted_as_people_would() -> None:
    if not ODD.is_file():
        pytest.skip("no odd texts (odd_inputs/D4_redaction) beside the repository")
    rows = [json.loads(line) for line in ODD.read_text(encoding="utf-8").splitlines()]
    _, kinds = redact(pl.Series([row["messages"][0]["content"] for row in rows]), RedactionSettings())
    found = {row["id"]: ", ".join(each) for row, each in zip(rows, kinds.to_list(), strict=True) if each}
    assert found == ODD_KINDS


def test_rows_stay_in_place_and_nulls_stay_null() -> None:
    texts = pl.Series("content", ["a", None, "x@y.org", "", "b", "call +44 20 7946 0958 or x@y.org"])
    found, kinds = redact(texts, RedactionSettings())
    assert found.to_list() == ["a", None, "<EMAIL>", "", "b", "call <PHONE> or <EMAIL>"]
    assert kinds.to_list() == [[], [], ["email"], [], [], ["email", "phone"]]
    assert found.name == "content"


PIECES = st.sampled_from([text for _, _, text, _ in FOUND] + LEFT)


@settings(deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=30)), max_size=6), st.sampled_from(["", " ", "\n", ", "]))
def test_what_was_replaced_is_not_found_again(pieces: list[str], between: str) -> None:
    once, kinds = one(between.join(pieces))
    assert one(once) == (once, [])
    assert bool(kinds) == (once != between.join(pieces))


def test_countries_decide_whose_numbers_are_looked_for() -> None:
    german, spanish = "call 030 23125678", "12345678Z"
    assert one(german, countries=("DE",))[1] == ["phone"]
    assert one(german, countries=("US",))[1] == []
    assert one(spanish, countries=("ES",))[1] == ["identity_number"]
    assert one(spanish, countries=("US",))[1] == []
    assert one("passport no. C01234567 and +44 20 7946 0958", countries=())[1] == ["identity_number", "phone"]
    with pytest.raises(ValueError, match=r"no country of libphonenumber: XX, de; a country is two capital letters, GB"):
        RedactionSettings(countries=("de", "XX"))


@settings(deadline=None)
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
