"""Personal data and secrets in messages, replaced by placeholders before any model sees a text.

What belongs here: what is looked for, by kind and by setting, and the replacing. What does not: the rules (``redaction.keys``,
``redaction.numbers``, ``redaction.words``), named entities (``entities.py`` finds those, if the profile wants them), and who is asked to
redact (``ingest.py``). What is found is neither kept nor logged, only how often which kind was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache

import phonenumbers
import polars as pl
from pydantic import BaseModel, Field, field_validator

from rlhi_dagster.conversations.redaction import keys, numbers, words
from rlhi_dagster.conversations.redaction.rule import Rule, has_word, matches

KINDS = pl.List(pl.String())
Entities = Callable[[Sequence[str]], list[list[tuple[int, int, str]]]]
"""Finds named entities: of each text, start, end and label, in order and without overlap."""


class Kind(StrEnum):
    """What is replaced; the placeholder is the name in capitals: `<EMAIL>`."""

    KEY = "key"
    """API keys, tokens, private keys and passwords."""
    EMAIL = "email"
    """E-mail addresses, also spelt out."""
    CARD = "card"
    """Payment card numbers of 14 to 19 digits."""
    BANK_ACCOUNT = "bank_account"
    """IBANs."""
    IDENTITY_NUMBER = "identity_number"
    """Numbers that states give to people, of passports and driving licences."""
    PHONE = "phone"
    """Phone numbers in international form, with a North American area code, or as people of the profile's countries write them."""
    IP_ADDRESS = "ip_address"
    """Publicly routable IPv4 and IPv6 addresses."""
    MAC_ADDRESS = "mac_address"
    """Addresses of network cards."""
    BIRTH_DATE = "birth_date"
    """Birth dates that a user or a form gives."""
    COORDINATES = "coordinates"
    """Places on earth by latitude and longitude."""
    ADDRESS = "address"
    """Streets with a house number."""
    NAME = "name"
    """Names that people give as theirs."""


class EntitySettings(BaseModel, frozen=True, extra="forbid"):
    """Named entities that are replaced by their label, `<PERSON>`."""

    pipeline: str = Field(min_length=1, description="spaCy pipeline with an entity recogniser: installed name or local folder.")
    labels: tuple[str, ...] = Field(default=("PERSON",), min_length=1, description="Labels of the pipeline that are replaced.")


class RedactionSettings(BaseModel, frozen=True, extra="forbid"):
    """What is replaced in every message."""

    kinds: tuple[Kind, ...] = Field(default=tuple(Kind), description="Kinds that are replaced by pattern; none to switch it off.")
    countries: tuple[str, ...] = Field(
        default=("US", "GB", "DE", "FR", "ES", "IT", "BR", "PL", "NL", "CA", "IN"),
        description="Countries, by two letters, whose phone numbers without a country code and whose identity numbers are looked for.",
    )
    entities: EntitySettings | None = Field(default=None, description="Named entities, too; needs the extra `entities`.")

    @field_validator("countries")
    @classmethod
    def _are_known(cls, countries: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(countries) - phonenumbers.SUPPORTED_REGIONS):
            raise ValueError(f"no country of libphonenumber: {', '.join(unknown)}; a country is two capital letters, GB")
        return countries


def redact(texts: pl.Series, settings: RedactionSettings, entities: Entities | None = None) -> tuple[pl.Series, pl.Series]:
    """Replace what the settings name; texts without any of it stay as they are.

    Args:
        texts: Messages; nulls stay null.
        settings: What to replace.
        entities: Finds named entities, if they are to be replaced.

    Returns:
        The texts, and of each text the kinds (or entity labels) of the replaced stretches, one entry a stretch (`KINDS`).
    """
    frame = texts.alias("text").to_frame().with_row_index("row").drop_nulls()
    found: dict[int, tuple[str, list[str]]] = {}
    changed = frame
    while now := _replaced(changed, _rules(settings)):  # a placeholder can set free what was glued to the text it replaces
        found |= {row: (after, [*found.get(row, ("", []))[1], *kinds]) for row, (after, kinds) in now.items()}
        changed = pl.DataFrame([(row, after) for row, (after, _) in now.items()], schema=frame.schema, orient="row")
    if entities:
        found = _by_entity({row: found.get(row, (original, [])) for row, original in frame.iter_rows()}, entities)
    changed = pl.DataFrame(
        [(row, after, kinds) for row, (after, kinds) in found.items()],
        schema={"row": frame["row"].dtype, "new": pl.String, "kinds": KINDS},
        orient="row",
    )
    joined = texts.alias("text").to_frame().with_row_index("row").join(changed, on="row", how="left", maintain_order="left")
    kinds_of = joined["kinds"].fill_null(pl.Series([[]], dtype=KINDS))
    return joined.select(pl.coalesce("new", "text")).to_series().alias(texts.name), kinds_of


_Look = Callable[[pl.Expr], pl.Expr]


@cache
def _rules(settings: RedactionSettings) -> tuple[tuple[_Look, tuple[tuple[Kind, Rule], ...]], ...]:
    """The rules of the kinds that are looked for, in the order in which they are applied, under a coarse look that several share."""
    rules: dict[_Look, dict[Kind, tuple[Rule, ...]]] = {
        has_word((*keys.WORDS, *words.WORDS, *numbers.WORDS)): {
            Kind.KEY: keys.NAMED,
            Kind.EMAIL: words.EMAILS,
            Kind.NAME: words.NAMES,
            Kind.ADDRESS: words.HOUSES,
            Kind.BIRTH_DATE: numbers.BIRTH_DATES,
            Kind.IDENTITY_NUMBER: numbers.DOCUMENTS,
        },
        matches(keys.RUN): {Kind.KEY: keys.FORMED},
        matches(numbers.LOOK): {
            Kind.CARD: numbers.CARDS,
            Kind.BANK_ACCOUNT: numbers.ACCOUNTS,
            Kind.IDENTITY_NUMBER: numbers.identity_numbers(settings.countries),
            Kind.COORDINATES: numbers.COORDINATES,
            Kind.IP_ADDRESS: numbers.IP_ADDRESSES,
            Kind.MAC_ADDRESS: numbers.MAC_ADDRESSES,
            Kind.PHONE: numbers.phones(settings.countries),
            Kind.ADDRESS: words.STREETS,
        },
    }
    chosen: list[tuple[_Look, tuple[tuple[Kind, Rule], ...]]] = []
    for look, of_kinds in rules.items():
        of_look = tuple((kind, rule) for kind, of_kind in of_kinds.items() if kind in settings.kinds for rule in of_kind)
        chosen += [(look, of_look)] if of_look else []
    return tuple(chosen)


def _replaced(frame: pl.DataFrame, rules: Sequence[tuple[_Look, tuple[tuple[Kind, Rule], ...]]]) -> dict[int, tuple[str, list[str]]]:
    """Of the texts in which a rule finds something: by row, the text without it and what it was."""
    text = pl.col("text")
    found: dict[int, tuple[str, list[str]]] = {}
    for look, of_look in rules:
        suspects = frame.filter(look(text))
        for kind, rule in of_look:
            for row, original in suspects.filter(rule.sign(text)).iter_rows():
                before, kinds = found.get(row, (original, []))
                after, count = rule.replaced(before, f"<{kind.name}>")
                if count:
                    found[row] = (after, [*kinds, *[kind.value] * count])
    return found


def _by_entity(found: dict[int, tuple[str, list[str]]], entities: Entities) -> dict[int, tuple[str, list[str]]]:
    spans_of = entities([text for text, _ in found.values()])
    result = {}
    for (row, (text, kinds)), spans in zip(found.items(), spans_of, strict=True):
        parts, at = [], 0
        for start, end, label in spans:
            parts += [text[at:start], f"<{label}>"]
            at = end
        result[row] = ("".join([*parts, text[at:]]), [*kinds, *(label.lower() for _, _, label in spans)])
    return result
