"""The secret behind user fingerprints: whether it is one, where it is kept, and that outputs keep the one they were made with.

What belongs here: the salt as a secret, its file, and its fingerprint. What does not: which salt a profile has (``profiles.salt``) and what
is made with it (``conversations.ingest``).

An example of why: there are four thousand million IPv4 addresses, so who knows the salt finds the address behind every fingerprint by
trying all of them, in minutes. And a forgotten user is kept out by a fingerprint, which under another salt is somebody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import secrets
from itertools import pairwise
from pathlib import Path

from rlhi_dagster.profiles.files import ProfileError

RECORD = ".salt_fingerprint"
"""File in the lake."""
_LEAST_BITS = 50
_WORDS = re.compile(
    "change|this|yours?|mine|very|secret|geheim|salt|salz|pepper|password|passwort|pass|phrase|word|key|token|example|sample|test|demo|default|"
    "town|village|public|rlhi|dagster|admin|users?|root|hello|world|string|random|some|any|fingerprints?|please|made|here|"
    "correct|horse|battery|staple|quick|brown|fox|jumps|over|lazy|dog|lorem|ipsum|dolor"
)
"""Words of placeholders, which make nothing harder to guess."""
_ROWS = ("qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm", "1234567890")
_BESIDE = {pair for row in _ROWS for one, other in pairwise(row) for pair in (one + other, other + one)}
"""Letters side by side on a keyboard."""
_HOW = "openssl rand -hex 32 makes one"


def check_secret(salt: str, where: str) -> None:
    """Refuse a salt that could be found by trying.

    Args:
        salt: The salt.
        where: Who gives it, for the message.

    Raises:
        ProfileError: It is blank, a placeholder, or too regular: a letter counts if neither the one before it nor an earlier pair foretells
            it, and all of them are to make 50 bits.
    """
    if (bits := _bits(salt)) < _LEAST_BITS:
        raise ProfileError(
            f"{where} is no secret ({bits:.0f} of {_LEAST_BITS} bits, without words of placeholders and what repeats itself): whoever "
            f"guesses it finds the people behind fingerprints by trying. {_HOW}; keep it for as long as fingerprints must stay the same"
        )


def kept_secret(file: Path) -> str:
    """The secret in ``file``, drawn if there is none; readable by its owner only, and never half of it read.

    Raises:
        ProfileError: The file holds no secret.
    """
    if not file.exists():
        _put_once(file, secrets.token_hex(32))
    file.chmod(0o600)
    secret = file.read_text(encoding="utf-8").strip()
    if not secret:
        raise ProfileError(f"{file} is empty: set RLHI_SALT, or remove the file to draw a new secret (fingerprints will change)")
    check_secret(secret, str(file))
    return secret


def fingerprint(salt: str) -> str:
    """By which a salt is told from another without being told: keyed BLAKE2b, 8 bytes as hex."""
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    return hashlib.blake2b(b"the salt itself", key=key, person=b"rlhi salt", digest_size=8).hexdigest()


def recorded(lake: Path) -> str | None:
    """Fingerprint of the salt with which the tables of a lake are made; ``None`` before the first run."""
    file = lake / RECORD
    return (file.read_text(encoding="utf-8").strip() or None) if file.is_file() else None


def keep(lake: Path, salt: str) -> None:
    """Record with a lake with which salt its tables are made.

    Raises:
        ProfileError: They were made with another.
    """
    if recorded(lake) is None:
        (lake / RECORD).unlink(missing_ok=True)
        _put_once(lake / RECORD, fingerprint(salt))
    if recorded(lake) != fingerprint(salt):
        raise ProfileError(
            f"the tables in {lake} were made with another salt (its fingerprint is {recorded(lake)}, now it is {fingerprint(salt)}), under "
            "which everybody would be somebody else: set RLHI_SALT to what it was, or give new outputs with RLHI_DATA"
        )


def _bits(salt: str) -> float:
    """How hard a salt is to guess, at most: letters that nothing before them foretells, times the bits of one."""
    left = _WORDS.sub("", "".join(salt.casefold().split()))
    counted, pairs = 0, set[str]()
    for before, letter in pairwise(left):
        pair = before + letter
        counted += not (abs(ord(before) - ord(letter)) <= 1 or pair in _BESIDE or pair in pairs)
        pairs.add(pair)
    return counted * math.log2(max(len(set(left)), 1))


def _put_once(file: Path, text: str) -> None:
    """Write a file that is not there aside and link it, so that of several writers the first one stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(text)
        with contextlib.suppress(FileExistsError):
            os.link(partial, file)
    finally:
        partial.unlink(missing_ok=True)
