"""Personal data and secrets in messages, replaced by placeholders before any model sees a text.

What belongs here: what is looked for and what it becomes. What does not: named entities (``entities.py`` finds those, if the profile wants
them), and who is asked to redact (``ingest.py``).

Signs that Polars looks for find the few texts worth a closer look; those are searched with Python's `re`, and what a pattern found is
believed only if it passes a test of its kind: a phone number must be valid by Google's libphonenumber, a card number by its check digit,
an address must be publicly routable and not look like a version. So code and arithmetic stay intact. The token patterns follow the rules
of gitleaks and detect-secrets. What is found is neither kept nor logged, only how often which kind was.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import phonenumbers
import polars as pl
from pydantic import BaseModel, Field

KINDS = pl.List(pl.String())
Entities = Callable[[Sequence[str]], list[list[tuple[int, int, str]]]]
"""Finds named entities: of each text, start, end and label, in order and without overlap."""


class Kind(StrEnum):
    """What is replaced; the placeholder is the name in capitals: `<EMAIL>`."""

    KEY = "key"
    """API keys, tokens, private keys, and passwords in URLs."""
    EMAIL = "email"
    """E-mail addresses."""
    CARD = "card"
    """Payment card numbers of 15 or 16 digits."""
    PHONE = "phone"
    """Phone numbers in international form, or with a North American area code."""
    IP_ADDRESS = "ip_address"
    """Publicly routable IPv4 and IPv6 addresses."""


class EntitySettings(BaseModel, frozen=True, extra="forbid"):
    """Named entities that are replaced by their label, `<PERSON>`."""

    pipeline: str = Field(min_length=1, description="spaCy pipeline with an entity recogniser: installed name or local folder.")
    labels: tuple[str, ...] = Field(default=("PERSON",), min_length=1, description="Labels of the pipeline that are replaced.")


class RedactionSettings(BaseModel, frozen=True, extra="forbid"):
    """What is replaced in every message."""

    kinds: tuple[Kind, ...] = Field(default=tuple(Kind), description="Kinds that are replaced by pattern; none to switch it off.")
    entities: EntitySettings | None = Field(default=None, description="Named entities, too; needs the extra `entities`.")


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a kind is found.

    Attributes:
        sign: Whether a text is worth a closer look; never false where the pattern matches.
        pattern: What may be one; the group `secret`, if there is one, is the part to replace.
        is_one: Whether a match is one.
    """

    sign: Callable[[pl.Expr], pl.Expr]
    pattern: re.Pattern[str]
    is_one: Callable[[str], bool]


def redact(texts: pl.Series, settings: RedactionSettings, entities: Entities | None = None) -> tuple[pl.Series, pl.Series]:
    """Replace what the settings name; texts without any of it stay as they are.

    Args:
        texts: Messages; nulls stay null.
        settings: What to replace.
        entities: Finds named entities, if they are to be replaced.

    Returns:
        The texts, and of each text the kinds (or entity labels) of the replaced stretches, one entry a stretch (`KINDS`).
    """
    text = pl.col("text")
    frame = texts.alias("text").to_frame().with_row_index("row").drop_nulls()
    suspects = frame if entities else frame.filter(_is_suspect(text))
    found: dict[int, tuple[str, list[str]]] = {}
    for kind in (kind for kind in Kind if kind in settings.kinds):
        for row, original in suspects.filter(_RULES[kind].sign(text)).iter_rows():
            before, kinds = found.get(row, (original, []))
            after, count = _replaced(before, kind)
            if count:
                found[row] = (after, [*kinds, *[kind.value] * count])
    # A placeholder can set free what was glued to the text it replaces.
    found = {row: _until_nothing_is_found(*each, settings.kinds) for row, each in found.items()}
    if entities:
        found = _by_entity({row: found.get(row, (original, [])) for row, original in suspects.iter_rows()}, entities)
    changed = pl.DataFrame(
        [(row, after, kinds) for row, (after, kinds) in found.items()],
        schema={"row": frame["row"].dtype, "new": pl.String, "kinds": KINDS},
        orient="row",
    )
    joined = texts.alias("text").to_frame().with_row_index("row").join(changed, on="row", how="left", maintain_order="left")
    kinds_of = joined["kinds"].fill_null(pl.Series([[]], dtype=KINDS))
    return joined.select(pl.coalesce("new", "text")).to_series().alias(texts.name), kinds_of


def _replaced(text: str, kind: Kind) -> tuple[str, int]:
    rule, count = _RULES[kind], 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        secret = match.groupdict().get("secret") or match.group()
        if not rule.is_one(secret):
            return match.group()
        count += 1
        return match.group().replace(secret, f"<{kind.name}>")

    return rule.pattern.sub(replace, text), count


def _until_nothing_is_found(text: str, found: list[str], kinds: Sequence[Kind]) -> tuple[str, list[str]]:
    before = None
    while text != before:
        before = text
        for kind in (kind for kind in Kind if kind in kinds):
            text, count = _replaced(text, kind)
            found = [*found, *[kind.value] * count]
    return text, found


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


def _is_secret(text: str) -> bool:
    """Anything but the `user:password` of an example."""
    return not re.fullmatch(r"(?:your_?)?(?:user(?:name)?|login|admin):(?:your_?)?pass(?:word)?", text, re.IGNORECASE)


def _is_card(text: str) -> bool:
    """Luhn's check digit, and not one or two digits all along."""
    digits = [int(digit) for digit in text if digit.isdigit()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 2


def _is_phone(text: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, None if text.startswith("+") else "US"))
    except phonenumbers.NumberParseException:
        return False


def _is_public_address(text: str) -> bool:
    """Routable, and not of small numbers only, as versions are."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    looks_like_version = address.version == 4 and all(part < 20 for part in address.packed)
    return address.is_global and not address.is_multicast and not looks_like_version


def _is_suspect(text: pl.Expr) -> pl.Expr:
    """One coarse look at every text: no pattern matches where this is false."""
    has_number = text.str.contains(r"[0-9][0-9 ().-]{5,}[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:")
    return has_number | text.str.contains("@", literal=True) | _is_key_possible(text)


def _is_key_possible(text: pl.Expr) -> pl.Expr:
    """Whether a token's first characters are there, or an URL that may have a password."""
    return text.str.contains_any(list(_TOKEN_STARTS)) | (text.str.contains("://", literal=True) & text.str.contains("@", literal=True))


def _matches(pattern: str) -> Callable[[pl.Expr], pl.Expr]:
    return lambda text: text.str.contains(pattern)


_TOKEN_STARTS = (
    "sk-", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "AIza", "hf_", "k_live_", "k_test_",
    "eyJ", "PRIVATE KEY-----", "earer ", ":AA",
)  # fmt: skip

_RULES = {
    Kind.KEY: _Rule(
        _is_key_possible,
        re.compile(
            r"""
            (?<![A-Za-z0-9_])(?:
                sk-(?:[a-z]+-)*(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}     # OpenAI, Anthropic
              | (?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])                  # AWS access key
              | gh[pousr]_[A-Za-z0-9]{36,} | github_pat_[A-Za-z0-9_]{22,} # GitHub
              | glpat-[A-Za-z0-9_-]{20,}                                  # GitLab
              | xox[abeprs]-[A-Za-z0-9-]{10,}                             # Slack
              | AIza[A-Za-z0-9_-]{35}                                     # Google
              | hf_[A-Za-z0-9]{30,}                                       # Hugging Face
              | [srp]k_(?:live|test)_[A-Za-z0-9]{16,}                     # Stripe
              | eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}  # JSON web token
              | \d{8,10}:AA[A-Za-z0-9_-]{33}                              # Telegram bot
              | [Bb]earer\ (?P<secret>(?=[A-Za-z._~+/-]*[0-9])[A-Za-z0-9._~+/-]{20,}=*)
            )
            | -----BEGIN\ (?:[A-Z]+\ )*PRIVATE\ KEY-----[^-]+-----END\ (?:[A-Z]+\ )*PRIVATE\ KEY-----
            | (?<=://)[^\s/:@<>]{1,64}:[^\s/:@<>]{3,64}(?=@[\w.-]+)       # user and password in a URL
            """,
            re.VERBOSE,
        ),
        _is_secret,
    ),
    Kind.EMAIL: _Rule(
        lambda text: text.str.contains("@", literal=True),
        re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"),
        lambda _: True,
    ),
    Kind.CARD: _Rule(
        _matches(r"\d{4}[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}|3[47]\d{2}[ -]?\d{6}[ -]?\d{5}"),
        re.compile(
            r"""
            (?<![\w.,-])(?:
                (?:[4-6]\d{3}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)([ -]?)\d{4}\1\d{4}\1\d{4}  # Visa, Mastercard, and others
              | 3[47]\d{2}([ -]?)\d{6}\2\d{5}  # American Express
            )(?![\w-])(?![.,]\d)
            """,
            re.VERBOSE | re.ASCII,
        ),
        _is_card,
    ),
    Kind.PHONE: _Rule(
        _matches(r"\+\d[\d ().-]{6,}\d|\d{3}\)? ?[-.]?\d{3}[-.]\d{4}"),
        re.compile(
            r"""
            (?<![\w.+/=-])(?:
                \+\d{1,3}(?:[ .-]?(?:\(\d{1,4}\)|\d{1,4})){2,6}              # international
              | (?:1[ .-])?(?:\(\d{3}\)\ ?|\d{3}[-.])\d{3}[-.]\d{4}          # North American
            )(?![\w/=])(?![.-]\d)
            """,
            re.VERBOSE | re.ASCII,
        ),
        _is_phone,
    ),
    Kind.IP_ADDRESS: _Rule(
        _matches(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]"),
        re.compile(
            r"(?<![\w.:-])(?:\d{1,3}(?:\.\d{1,3}){3}|[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:-])(?!\.\d)",
            re.ASCII,
        ),
        _is_public_address,
    ),
}
