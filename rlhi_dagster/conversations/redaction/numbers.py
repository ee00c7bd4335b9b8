"""Numbers of people, accounts and connections.

What belongs here: cards, bank accounts, identity numbers, phones, birth dates, addresses of machines, and where on earth somebody is.
What does not: keys (``redaction.keys``), and what is words (``redaction.words``).

A number is believed by its check digits where it has some: cards by Luhn's, accounts and identity numbers by python-stdnum, phones by
Google's libphonenumber. Where a number has none, or few, it is believed only beside a word that says what it is.
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import partial
from importlib import import_module

import phonenumbers
from stdnum import iban, luhn

from rlhi_dagster.conversations.redaction.rule import Rule, Span, matches

_BEFORE = 48
"""Characters before a number that are looked at for a word that says what it is."""

_CARD = re.compile(
    r"""
    (?<![\w.,-])(?:
        (?:[4-6]\d{3}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720|35\d{2})([ \u00a0-]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?
      | 3[47]\d{2}([ \u00a0-]?)\d{6}\2\d{5}                    # American Express
      | (?:3[689]\d{2}|30[0-5]\d)([ \u00a0-]?)\d{6}\3\d{4}   # Diners Club
    )(?![\w-])(?![.,]\d)
    """,
    re.VERBOSE | re.ASCII,
)
_ACCOUNT = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}))[A-Za-z]{2}\d{2}")
_SHORTEST_ACCOUNT = 15

_IDENTITY_WORD = re.compile(
    r"\b(?:ssn|social security|sin|nino?|national insurance|identity|identification|id(?:entity)? (?:no|number|card)|tax|steuer|idnr|dni|nie|nif|cpf|pesel"
    r"|bsn|burgerservice|sofi|aadhaar|pan|codice fiscale|personal|national|insee|sécurité sociale|nir|nhs)\b",
    re.IGNORECASE,
)
_Form = tuple[str, str, bool]
IDENTITY_NUMBERS: dict[str, tuple[_Form, ...]] = {
    "US": ((r"\d{3}-\d{2}-\d{4}", "us.ssn", False), (r"\d{9}|\d{3} \d{2} \d{4}", "us.ssn", True)),
    "GB": ((r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]", "", False),),
    "DE": ((r"\d{11}|\d{2} \d{3} \d{3} \d{3}", "de.idnr", True),),
    "FR": ((r"[12] ?\d{2} ?[0-3]\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir", False),),
    "ES": ((r"\d{8}[ -]?[A-Z]", "es.dni", False), (r"[XYZ][ -]?\d{7}[ -]?[A-Z]", "es.nie", False)),
    "IT": ((r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale", False),),
    "BR": ((r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf", False), (r"\d{11}", "br.cpf", True)),
    "PL": ((r"\d{11}", "pl.pesel", True),),
    "NL": ((r"\d{9}|\d{4}\.\d{2}\.\d{3}", "nl.bsn", True),),
    "CA": ((r"\d{3}-\d{3}-\d{3}|\d{3} \d{3} \d{3}|\d{9}", "ca.sin", True),),
    "IN": ((r"\d{4} \d{4} \d{4}|\d{12}", "in_.aadhaar", True), (r"[A-Z]{5}\d{4}[A-Z]", "in_.pan", True)),
}
"""Of each country the forms of its people's numbers, python-stdnum's module that checks them (none where there is nothing to check), and whether
one is believed only beside a word that says so."""
_DOCUMENT = re.compile(
    r"\b(?:passport|pasaporte|passeport|reisepass|passaporto|passaporte|paspoort|paszport|паспорт|driver['’]?s? licen[sc]e)"
    r"[^\d\n]{0,24}?\b(?P<secret>[A-Z]{0,2}\d{6,9}[A-Z]?)(?![\w-])",
    re.IGNORECASE,
)

_PHONE_WORD = re.compile(
    r"\b(?:call|phone|tel|tel[eé]f?ono?|t[eé]l[eé]phone|telefon|mobile?|m[oó]vil|handy|cell|celular|whatsapp|fax|sms|text me|my number|number is|reach me|ring)\b",
    re.IGNORECASE,
)
_INTERNATIONAL = re.compile(r"(?<![\w.+/=-])(?:\+|00(?=[1-9]))\d(?:[ .-]?(?:\(\d{1,4}\)|\d)){5,24}+(?![\w/=])(?![.-]\d)", re.ASCII)
_AMERICAN = re.compile(r"(?<![\w.+/=-])(?:1[ .-])?(?:\(\d{3}\)\ ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w/=])(?![.-]\d)", re.ASCII)
_NATIONAL = re.compile(r"(?<![\w.+/=(-])(?<!\d[ ,])\(?\d{2,5}\)?(?:[ ./-]{0,2}\d{2,8}){1,5}+(?![\w/=])(?![ .,-]{1,2}\d)", re.ASCII)
_NATIONAL_SIGN = (
    r"(?:^|[^0-9A-Za-z])\(?0[1-9][0-9 ()./-]{6,}[0-9]"
    r"|(?i:call|phone|tel|tél|mob|móvil|handy|cel|whatsapp|fax|sms|text me|number|reach me|ring)[^\n]{0,48}[0-9]{2}[0-9 ()./-]{6,}[0-9]"
)
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b|\d{4}[./-]\d{1,2}[./-]\d{1,2}\b")
_FEWEST_DIGITS = 9

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|janu|febr|märz|mai|juni|juli|okt|dez|ene|abr|ago|dic|fév|avr|juin|juil|août|déc)[^\W\d]{0,7}\.?"
_BORN = re.compile(
    rf"""
    (?:
        \bi\ was\ born(?:\ on)?(?:\ the)? | \bmy\ (?:birthday|birth\ ?date|date\ of\ birth)\ (?:is|was)(?:\ on)? | \bdate\ of\ birth | \bbirth\ ?date | \bd\.?o\.?b\b\.?
      | \bgeburtsdatum | \bich\ bin\ am | \bgeboren\ am | \bich\ wurde\ am | \bfecha\ de\ nacimiento | \bnac[ií]\ el | \bdate\ de\ naissance | \bje\ suis\ née?\ le
      | \bdata\ di\ nascita | \bsono\ nat[oa]\ il | \bdata\ de\ nascimento | \bnasci\ em | \bдата\ рождения | 出生日期 | 生日
    )
    \s{{0,2}}(?:is|ist|es|est|è|é)?\ ?[:：=]?\ {{0,2}}["']?
    (?P<secret>
        \d{{4}}[./-]\d{{1,2}}[./-]\d{{1,2}} | \d{{1,2}}[./-]\d{{1,2}}[./-](?:\d{{4}}|\d{{2}})
      | \d{{1,2}}(?:st|nd|rd|th|\.)?\ (?:of\ |de\ )?{_MONTH},?\ (?:de\ |of\ )?\d{{4}} | {_MONTH}\ \d{{1,2}}(?:st|nd|rd|th)?,?\ \d{{4}} | \d{{4}}年\d{{1,2}}月\d{{1,2}}日
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)

_PORT = re.compile(r":\d{2,5}(?!\d)")
_IP_ADDRESS = re.compile(
    r"""
    (?:(?<![\w.:-])(?:[0-9A-Fa-f:]{0,30}::(?:ffff:)?)??|(?<![\w.:/-])[A-Za-z_]\w{0,60}:)  # IPv4 within IPv6; a word and a colon
    (?P<secret>\d{1,3}(?:\.\d{1,3}){3}|[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?<![0-9A-Fa-f]:)(?!:[0-9A-Fa-f]{0,4}:))
    (?![\w-])(?!\.\d)
    """,
    re.VERBOSE | re.ASCII,
)
_VERSION_OF = re.compile(r"(?:[=<>~^]=? ?|\bv(?:er(?:sion)?)?\.? ?|(?<![\w/.])[A-Z][A-Za-z]{2,20}/)\Z", re.IGNORECASE)
_MAC_ADDRESS = re.compile(
    r"(?<![\w:.-])(?:[0-9A-Fa-f]{2}(?P<between>[:-])(?:[0-9A-Fa-f]{2}(?P=between)){4}[0-9A-Fa-f]{2}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4})(?![\w:-])(?!\.\w)"
)
_NO_MAC_ADDRESS = (
    "000000000000",
    "ffffffffffff",
    "001122334455",
    "0123456789ab",
    "aabbccddeeff",
    "112233445566",
    "123456789abc",
    "xxxxxxxxxxxx",
)

_DEGREES = r"\d{1,3}(?:\.\d{1,9})?\s?°\s?(?:\d{1,2}(?:\.\d{1,9})?\s?['′’]\s?)?(?:\d{1,2}(?:\.\d{1,9})?\s?(?:[\"″”]|'')\s?)?"
_COORDINATES = re.compile(
    rf"""
    {_DEGREES}[NS],?\s{{0,2}}{_DEGREES}[EWO]
    | (?P<before>(?:\b(?:lat(?:itude)?|lon(?:gitude)?|lng|gps|coord\w{{0,8}}|koordinaten|located|location|house|home|live|position)\b[^\n\d-]{{0,40}}|geo:|[@]|[?&](?:q|ll|query|center)=))
      (?P<latitude>-?\d{{1,2}}\.\d{{4,10}}),\s{{0,2}}(?P<longitude>-?\d{{1,3}}\.\d{{4,10}})(?!\d)(?!,\s?-?\d+\.\d)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _card(match: re.Match[str]) -> Span | None:
    """Luhn's check digit, and not one digit all along."""
    digits = re.sub(r"\D", "", match[0])
    return match.span() if luhn.is_valid(digits) and len(set(digits)) > 1 else None


def _account(match: re.Match[str]) -> Span | None:
    """As much of what begins like an IBAN as is one in the country's form, with right check digits."""
    text, taken = match[1], ""
    for place, sign in enumerate(text):
        taken += sign if sign.isalnum() else ""
        if len(taken) >= _SHORTEST_ACCOUNT and sign.isalnum() and iban.is_valid(taken):
            return match.start(), match.start() + place + 1
    return None


def _identity(forms: Sequence[_Form], match: re.Match[str]) -> Span | None:
    number = match[0]
    for form, module, needs_word in forms:
        if not re.fullmatch(form, number, re.ASCII) or (needs_word and not _stands_behind(match, _IDENTITY_WORD)):
            continue
        if not module or import_module(f"stdnum.{module}").is_valid(number):
            return match.span()
    return None


def _document(match: re.Match[str]) -> Span:
    return match.span("secret")


def _stands_behind(match: re.Match[str], word: re.Pattern[str]) -> bool:
    """Whether a word stands shortly before what was found."""
    return word.search(match.string[max(match.start() - _BEFORE, 0) : match.start()]) is not None


def _phone(region: str | None, match: re.Match[str]) -> Span | None:
    number = match[0]
    return match.span() if _is_phone(f"+{number[2:]}" if number.startswith("00") and region is None else number, region) else None


def _national(countries: Sequence[str], match: re.Match[str]) -> Span | None:
    number = match[0]
    digits = sum(map(str.isdigit, number))
    has_zero = number.lstrip("(").startswith("0") and not number.lstrip("(").startswith("00") and digits < len(number)
    if not _FEWEST_DIGITS <= digits <= 12 or _DATE.match(number) or not (has_zero or _stands_behind(match, _PHONE_WORD)):
        return None
    return match.span() if any(_is_phone(number, country) for country in countries) else None


def _is_phone(number: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _born(match: re.Match[str]) -> Span:
    return match.span("secret")


def _ip_address(match: re.Match[str]) -> Span | None:
    """Routable, and not of small numbers only or behind a name's slash, as versions are, unless a port follows."""
    try:
        address = ipaddress.ip_address(match["secret"])
    except ValueError:
        return None
    has_port = _PORT.match(match.string, match.end())
    before = match.string[max(match.start("secret") - _BEFORE, 0) : match.start("secret")]
    is_version = all(part < 40 for part in address.packed) or _VERSION_OF.search(before) is not None
    is_public = address.is_global and not address.is_multicast
    return match.span("secret") if is_public and (address.version == 6 or has_port or not is_version) else None


def _mac_address(match: re.Match[str]) -> Span | None:
    """Not one of examples and masks, and with a letter, as times have none."""
    signs = re.sub(r"[:.-]", "", match[0].lower())
    return None if signs in _NO_MAC_ADDRESS or signs.isdigit() or len(set(signs)) < 3 else match.span()


def _coordinates(match: re.Match[str]) -> Span | None:
    if match["latitude"] is None:
        return match.span()
    is_one = abs(float(match["latitude"])) <= 90 and abs(float(match["longitude"])) <= 180
    return (match.start("latitude"), match.end("longitude")) if is_one else None


LOOK = (
    r"[0-9][0-9 ()./\x{a0}-]{5,}[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:|(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}"
    r"|[A-Za-z]{2}[0-9]{2}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{4}|[A-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Z]|[A-Z]{5}[0-9]{4}[A-Z]|[XYZ][ -]?[0-9]{7}|[A-Z]{6}[0-9]{2}[A-Z]"
    r"|[0-9]\.[0-9]{4,10}, {0,2}-?[0-9]{1,3}\.[0-9]{4}|\x{b0}|[0-9][A-Za-z]? [A-Z]"
)
"""This is where all others find something, and `words.STREETS`: a pattern for Polars."""
WORDS = (
    "i was born", "my birth", "of birth", "birth date", "birthdate", "dob", "d.o.b", "geburtsdatum", "ich bin am", "geboren am", "ich wurde am", "de nacimiento",
    "naci el", "nací el", "de naissance", "suis né", "di nascita", "sono nat", "de nascimento", "nasci em", "рождения", "出生日期", "生日", "passport", "pasaporte", "passeport",
    "reisepass", "passap", "paspoort", "paszport", "паспорт", "licence", "license",
)  # fmt: skip
"""One of these is where `BIRTH_DATES` and `DOCUMENTS` find something, in small letters."""
_FIRST_DOCUMENT = WORDS.index("passport")


CARDS = (Rule(matches(r"\d{4}[ \x{a0}-]?\d{4}[ \x{a0}-]?\d{4}[ \x{a0}-]?\d{4}|3\d{3}[ \x{a0}-]?\d{6}[ \x{a0}-]?\d{4,5}"), _CARD, _card),)
ACCOUNTS = (Rule(matches(r"[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{4}"), _ACCOUNT, _account),)
DOCUMENTS = (Rule(matches(rf"(?i:{'|'.join(WORDS[_FIRST_DOCUMENT:])})[^\n]{{0,30}}[0-9]{{6}}"), _DOCUMENT, _document),)
BIRTH_DATES = (Rule(matches(rf"(?i:{'|'.join(map(re.escape, WORDS[:_FIRST_DOCUMENT]))})[^0-9\n]{{0,24}}[0-9]"), _BORN, _born),)
IP_ADDRESSES = (Rule(matches(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:"), _IP_ADDRESS, _ip_address),)
MAC_ADDRESSES = (
    Rule(matches(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|[0-9a-f]{4}\.[0-9a-f]{4}\.[0-9a-f]{4}"), _MAC_ADDRESS, _mac_address),
)
COORDINATES = (Rule(matches(r"°|-?\d{1,2}\.\d{4,10}, {0,2}-?\d{1,3}\.\d{4}"), _COORDINATES, _coordinates),)


def identity_numbers(countries: Sequence[str]) -> tuple[Rule, ...]:
    """Rules for the numbers that some countries give to people."""
    forms = tuple(form for country in countries for form in IDENTITY_NUMBERS.get(country, ()))
    if not forms:
        return ()
    seen = f"(?:{'|'.join(dict.fromkeys(form for form, _, _ in forms))})"
    numbers = re.compile(rf"(?<![\w.,-]){seen}(?![\w-])(?![.,]\d)", re.ASCII)
    return (Rule(matches(rf"(?-u:\b){seen}(?-u:\b)"), numbers, partial(_identity, forms)),)


def phones(countries: Sequence[str]) -> tuple[Rule, ...]:
    """Rules for international phone numbers, North American ones, and those that people of some countries write for their own."""
    return (
        Rule(matches(r"(?:\+|00)\d[\d ().-]{5,}\d"), _INTERNATIONAL, partial(_phone, None)),
        Rule(matches(r"\d{3}\)? ?[-.]?\d{3}[-.]\d{4}"), _AMERICAN, partial(_phone, "US")),
        Rule(matches(_NATIONAL_SIGN), _NATIONAL, partial(_national, tuple(countries))),
    )
