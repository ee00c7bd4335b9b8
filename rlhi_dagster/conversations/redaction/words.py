"""What tells people by words: e-mail addresses, the addresses of houses, and names that people give as theirs.

What belongs here: forms that are mostly letters. What does not: numbers (``redaction.numbers``), and
names that only a model finds (``entities.py``).
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import re

import polars as pl

from rlhi_dagster.conversations.redaction.rule import Rule, Span, matches, whole

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Scripts that write words without spaces, or endings straight behind a foreign word: an address ends where they begin."""
_MARKS = r"\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
"""What some scripts put to letters."""
_LETTERS = rf"\w{_MARKS}"
_OF_NAME, _OF_LABEL = rf"(?:[^\W{_UNSPACED}]|[{_MARKS}.%+-])", rf"(?:[^\W_{_UNSPACED}]|[{_MARKS}-])"
_ENDING = rf"(?:(?:xn--[A-Za-z0-9-]{{2,59}}|(?:(?![{_UNSPACED}_\d])[{_LETTERS}]){{2,24}})(?!{_OF_LABEL})|[{_UNSPACED}]{{2,24}})"
"""Top-level domain."""
_EMAIL = re.compile(
    rf"""
    (?P<other>
        ://[^\s/?\#@<>]{{1,128}}@                                           # user of a URL
      | \b(?:scp|sftp|sshfs|rsync)\ (?:[^\n@]{{0,200}}@[A-Za-z0-9.-]+:\S+)+   # user of a remote path
    )
    | (?P<secret>
        (?:(?<![^\W{_UNSPACED}])(?<![{_MARKS}.%+-]){_OF_NAME}{{1,64}} | (?<![{_LETTERS}.%+-])[{_LETTERS}.%+-]{{0,63}}[{_UNSPACED}])
        [@\uff20]
        (?>
            (?:(?:{_OF_LABEL}{{1,63}}|[{_UNSPACED}-]{{1,63}})[.\u3002\uff0e\uff61]){{1,8}}{_ENDING}
          | (?:(?:(?!_)[{_LETTERS}-]){{1,63}}[.\u3002\uff0e\uff61]){{1,8}}{_ENDING}  # scripts mixed within a label
        )
        (?!:(?:[\w.~+-]*/|~|\S*\.git\b))                                  # user of a remote path
    )
    """,
    re.VERBOSE,
)
_AT, _DOT = r"(?:\ ?[\[({<]\ ?at\ ?[\])}>]\ ?|\ at\ |@)", r"(?:\ ?[\[({<]\ ?(?:dot|\.)\ ?[\])}>]\ ?|\ dot\ |\.)"
_SPELT_EMAIL = re.compile(
    rf"(?<![\w.+-])[A-Za-z0-9._+-]{{1,64}}(?P<at>{_AT})[A-Za-z0-9-]{{1,63}}(?:{_DOT}[A-Za-z0-9-]{{2,63}}){{0,3}}(?P<dot>{_DOT})(?P<ending>[A-Za-z]{{2,12}})(?![\w-])",
    re.IGNORECASE | re.VERBOSE,
)
_ENDINGS = frozenset(
    [
        "com",
        "org",
        "net",
        "edu",
        "gov",
        "info",
        "io",
        "ai",
        "co",
        "me",
        "dev",
        "app",
        "de",
        "uk",
        "fr",
        "es",
        "it",
        "nl",
        "pl",
        "br",
        "ca",
        "in",
        "au",
        "ch",
        "at",
        "be",
        "se",
        "no",
        "dk",
        "fi",
        "cz",
        "ru",
        "jp",
        "cn",
        "eu",
        "us",
    ]
)

_STREET = r"(?:Street|St\.?|Avenue|Ave\.?|Road|Rd\.?|Boulevard|Blvd\.?|Lane|Ln\.?|Drive|Dr\.?|Court|Ct\.?|Terrace|Parkway|Pkwy|Crescent|Close|Way|Place|Square)"
_ADDRESS = re.compile(
    rf"""
    (?<![\w.,-])(?:
        \d{{1,5}}[A-Za-z]?\ (?:[NSEW]\.?\ )?(?:(?!{_STREET}(?!\w))[A-Z][\w'’-]{{1,20}}\ ){{1,3}}{_STREET}(?!\w)(?:,?\ (?:Apt|Apartment|Suite|Unit|Flat|\#)\.?\ ?\w{{1,5}})?
      | [A-ZÄÖÜ][a-zäöüß]{{2,20}}(?:straße|strasse|str\.|weg|platz|allee|gasse)\ \d{{1,4}}(?:\ ?[a-z]\b)?
      | \d{{1,4}}(?:\ (?:bis|ter))?,?\ (?:rue|avenue|boulevard|place|chemin|impasse|allée|quai)\ (?:de\ la\ |de\ l['’]|du\ |des\ |de\ |d['’])?[A-ZÀ-Ý][\w'’-]{{1,24}}(?:\ [A-ZÀ-Ý][\w'’-]{{1,24}}){{0,2}}
      | (?:Calle|C/|Avenida|Avda\.|Paseo|Via|Viale|Corso|Piazza|Rua)\ (?:(?:de|del|la|las|los|da|do|dos|di)\ ){{0,2}}[A-ZÀ-Ý][\w'’-]{{1,24}}(?:\ [A-ZÀ-Ý][\w'’-]{{1,24}}){{0,2}},?\ (?:n[º°o]\.?\ ?)?\d{{1,4}}
      | P\.?\ ?O\.?\ Box\ \d{{1,6}}
    )(?!\w)
    """,
    re.VERBOSE,
)
_NAME = re.compile(
    r"""
    (?: \b(?i:my\ (?:full\ |real\ |first\ |last\ )?name\ is|my\ name['’]s|name:|mein\ name\ ist|ich\ hei(?:ß|ss)e|me\ llamo|mi\ nombre\ es|je\ m['’]appelle|mon\ nom\ est|mi\ chiamo|il\ mio\ nome\ è|meu\ nome\ é|me\ chamo|меня\ зовут)
      | \b(?:[Hh]i|[Hh]ello|[Hh]ey)[,!.]?\ (?:I['’]m|I\ am|this\ is)
      | (?:^|\n)(?i:(?:best|kind|warm)?\ ?regards|sincerely|yours(?:\ truly)?|cheers|mit\ freundlichen\ grüßen|cordialement|saludos),?\ ?\n{1,2}
    )
    \ {0,2}(?P<secret>[A-ZÀ-ÝА-Я][\w'’-]{1,24}(?:\ (?:[A-ZÀ-ÝА-Я][\w'’-]{1,24}|[A-Z]\.|van|von|de|da|del|di|bin)){0,3})
    """,
    re.VERBOSE,
)


def _has_at(text: pl.Expr) -> pl.Expr:
    return text.str.contains("@", literal=True) | text.str.contains("\uff20", literal=True)


def _email(match: re.Match[str]) -> Span | None:
    return match.span("secret") if match["secret"] else None


def _spelt(match: re.Match[str]) -> Span | None:
    """With one of `at` and `dot` in words, and an ending that is common: words are no ending."""
    is_spelt = match["at"] != "@" and (match["at"] != " at " or match["dot"] != ".")
    return match.span() if is_spelt and match["ending"].lower() in _ENDINGS else None


def _secret(match: re.Match[str]) -> Span:
    return match.span("secret")


_NAMED = (
    r"(?:(?i:name['’]s|name:|name is|name ist|ich hei(?:ß|ss)e|me llamo|mi nombre es|je m['’]appelle|mon nom est|mi chiamo|il mio nome è|meu nome é|me chamo|меня зовут)"
    r"|[Hh](?:i|ello|ey)[,!.]? (?:I['’]m|I am|this is)|(?i:regards|sincerely|yours|yours truly|cheers|grüßen|cordialement|saludos),? ?\n{1,2}) {0,2}[A-ZÀ-ÝА-Я]"
)
_SPELT = r"(?i:[\[({<] ?at ?[\])}>] ?[a-z0-9-]+|[a-z0-9] at [a-z0-9-]+(?: dot | ?[\[({<] ?(?:dot|\.) ?[\])}>]))"
_HOUSE = (
    r"(?:straße|strasse|str\.|weg|platz|allee|gasse) [0-9]|[0-9],?(?: bis| ter)?,? (?:rue|avenue|boulevard|place|chemin|impasse|allée|quai) "
    r"|(?:Calle|C/|Avenida|Avda\.|Paseo|Via|Viale|Corso|Piazza|Rua) [^0-9\n]{2,40}[0-9]|Box [0-9]"
)
_STREET_SIGN = r"[0-9][A-Za-z]? (?:[NSEW]\.? )?(?:[A-Z][^ \n]{1,20} ){1,3}(?:St|Av|Ro|Rd|Bo|Bl|La|Ln|Dr|Co|Ct|Te|Pa|Pk|Cr|Cl|Way|Pl|Sq)"
EMAILS = (Rule(_has_at, _EMAIL, _email, re.compile("[@\uff20]")), Rule(matches(_SPELT), _SPELT_EMAIL, _spelt))
STREETS = (Rule(matches(_STREET_SIGN), _ADDRESS, whole),)
HOUSES = (Rule(matches(_HOUSE), _ADDRESS, whole),)
NAMES = (Rule(matches(_NAMED), _NAME, _secret),)

WORDS = (
    "@", "\uff20", "(at)", "[at]", "{at}", "<at>", "( at ", "[ at ", "{ at ", "< at ", " dot ", "(dot)", "[dot]", "{dot}",
    "name's", "name’s", "name:", "name is", "name ist", "ich hei", "me llamo", "nombre es", "appelle", "nom est", "mi chiamo", "mio nome", "meu nome", "me chamo", "зовут",
    "hi i'm", "hi, i'm", "hi i am", "hi, i am", "hi! i", "hi. i", "hello i", "hello, i", "hello! i", "hello. i", "hey i'm", "hey, i'm", "hey i am", "hey, i am", "hey! i", "hey. i",
    "hi i’m", "hi, i’m", "hey i’m", "hey, i’m", ", this is", "hi this", "hello this", "hey this", "! this is", ". this is", "regards", "sincerely", "yours", "cheers", "grüßen",
    "cordialement", "saludos",
    "straße ", "strasse ", "str. ", "weg ", "platz ", "allee ", "gasse ", " rue ", " avenue ", " boulevard ", " place ", " chemin ", " impasse ", " allée ", " quai ", "calle ",
    "c/ ", "avenida ", "avda. ", "paseo ", "via ", "viale ", "corso ", "piazza ", "rua ", "box ",
)  # fmt: skip
"""One of these is where `EMAILS`, `NAMES` and `HOUSES` find something, in small letters."""
