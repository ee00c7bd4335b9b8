"""How much of what should not be read redaction finds, and how often it replaces what is harmless.

What belongs here: a table of made-up secrets by kind, harmless strings that look like them, and the shares found with their 95 % intervals
(Wilson); and, with ``--ingest``, what redaction adds to the time of an ingest. What does not: a threshold; results are recorded in
``README.md`` with date and machine. Run ``python benchmarks/redaction.py --help``.

All of it is made up here, by a generator with a seed and by hand. Keys are put together from parts, so that no scanner takes this file
for a leak. A secret counts as found if no part of it that tells it is left; a harmless string is hit if anything in it was replaced.
"""

# ruff: noqa: E501 -- a string on one line can be searched and compared with its neighbours

from __future__ import annotations

import argparse
import base64
import json
import random
import string
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
from wildchat_shaped import write

from rlhi_dagster.base.intervals import wilson
from rlhi_dagster.conversations.ingest import judge
from rlhi_dagster.conversations.redaction import RedactionSettings, redact
from rlhi_dagster.conversations.sources import SourceKind, SourceSettings, month_counts

EACH = 6
"""Times each maker of a secret is asked."""
HARMLESS = 2_400
HEX, DIGITS, UPPER, LETTERS = "0123456789abcdef", string.digits, string.ascii_uppercase, string.ascii_letters
ALNUM = LETTERS + DIGITS

Draw = random.Random
Made = tuple[str, str]
"""A text, and the part of it that must not be left."""


def _of(draw: Draw, signs: str, count: int) -> str:
    return "".join(draw.choices(signs, k=count))


def _key(head: str, signs: str, count: int, tail: str = "") -> Callable[[Draw], Made]:
    """A vendor's key in one of the places where people paste them."""

    def make(draw: Draw) -> Made:
        body = _of(draw, signs, count)
        whole = head + body + tail
        place = draw.choice(
            (
                "my key is {}",
                "{}",
                'client = Client("{}")',
                "export X={}",
                "Here is the error for {}:\n401",
                "key: {}, why?",
                '{{"k": "{}"}}',
            )
        )
        return place.format(whole), body

    return make


def _in(places: str | tuple[str, ...], secret: Callable[[Draw], str]) -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        made = secret(draw)
        return draw.choice((places,) if isinstance(places, str) else places).replace("@@", made), made

    return make


def _password(draw: Draw) -> str:
    return (
        draw.choice(("Sommer", "Tr0ub4dor", "blue-Horse", "qwe", "Xa9"))
        + _of(draw, DIGITS, 3)
        + draw.choice("!#$%&*")
        + _of(draw, ALNUM, 2)
    )


def _base64(draw: Draw, count: int) -> str:
    return base64.b64encode(draw.randbytes(count)).decode()


def _jwt(draw: Draw) -> str:
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps({"sub": _of(draw, DIGITS, 10), "iat": draw.randrange(10**9)}))
    head, body = (base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return f"{head}.{body}.{base64.urlsafe_b64encode(draw.randbytes(32)).decode().rstrip('=')}"


def _pem(begin: str, end: str | None, headers: str = "") -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        lines = [_base64(draw, 48) for _ in range(draw.randrange(3, 9))]
        last = _base64(draw, draw.randrange(13, 40))
        whole = "\n".join(
            [
                "-----BEGIN " + begin + "-----",
                *([headers, ""] if headers else []),
                *lines,
                last,
                *(["-----END " + end + "-----"] if end else []),
            ]
        )
        return f"This does not load:\n{whole}\nWhat is wrong?" if end else f"It begins like this:\n{whole}", lines[1]

    return make


KEYS: dict[str, Callable[[Draw], Made]] = {
    "OpenAI": _key("sk-", ALNUM, 48),
    "OpenAI project": _key("sk-" + "proj-", ALNUM, 60),
    "Anthropic": _key("sk-" + "ant-api03-", ALNUM + "-_", 93, "AA"),
    "OpenRouter": _key("sk-" + "or-v1-", HEX, 64),
    "AWS access key": _key("AK" + "IA", UPPER + "234567", 16),
    "AWS secret": _in(("aws_secret_access_key = @@", "AWS_SECRET_ACCESS_KEY=@@", 'SecretAccessKey: "@@"', "my AWS secret key: @@"), lambda draw: _base64(draw, 30)),
    "GitHub": _key("gh" + "p_", ALNUM, 36),
    "GitHub, fine-grained": _key("github_" + "pat_", ALNUM, 22, "_" + "Xy3" * 19),
    "GitHub app": _key("gh" + "s_", ALNUM, 36),
    "GitLab": _key("gl" + "pat-", ALNUM, 20),
    "Slack bot": _key("xo" + "xb-", DIGITS, 12, "-" + "4" * 12 + "-" + "aB3" * 8),
    "Slack app": _key("xa" + "pp-1-", UPPER + DIGITS, 11, "-" + "5" * 13 + "-" + "ab12" * 16),
    "Slack webhook": _in("curl -X POST https://hooks.slack" + ".com/services/@@", lambda draw: f"T{_of(draw, UPPER + DIGITS, 8)}/B{_of(draw, UPPER + DIGITS, 8)}/{_of(draw, ALNUM, 24)}"),
    "Google API": _key("AI" + "za", ALNUM + "-_", 35),
    "Google OAuth": _key("ya" + "29.", ALNUM + "-_", 120),
    "Google client secret": _key("GOC" + "SPX-", ALNUM + "-_", 28),
    "Hugging Face": _key("h" + "f_", LETTERS, 34),
    "Stripe": _key("sk_" + "live_", ALNUM, 24),
    "Stripe webhook": _key("wh" + "sec_", ALNUM, 32),
    "Twilio key": _key("S" + "K", HEX, 32),
    "Twilio token": _in(("TWILIO_AUTH_TOKEN=@@", "auth_token = '@@'", 'account_sid = "AC1", auth_token = "@@"'), lambda draw: _of(draw, HEX, 32)),
    "SendGrid": _key("S" + "G.", ALNUM + "-_", 22, "." + "a1B2" * 10 + "xyz"),
    "npm": _key("np" + "m_", ALNUM, 36),
    "PyPI": _key("py" + "pi-AgEIcHlwaS5vcmc", ALNUM + "-_", 120),
    "Azure storage": _in("DefaultEndpointsProtocol=https;AccountName=a;Account" + "Key=@@;EndpointSuffix=core.windows.net", lambda draw: _base64(draw, 64)),
    "Azure client secret": _in(("client_secret=@@", "it says @@ has expired"), lambda draw: _of(draw, ALNUM, 3) + "8Q~" + _of(draw, ALNUM + "-_.~", 33) + "a"),
    "Azure key": _in(("AZURE_OPENAI_API_KEY = @@", 'api_key="@@"', "Ocp-Apim-Subscription-Key: @@"), lambda draw: _of(draw, HEX, 32)),
    "Discord bot": _in(("bot.run('@@')", "TOKEN = '@@'", "the token @@ is invalid"), lambda draw: "M" + _of(draw, ALNUM, 23) + "." + "G" + _of(draw, ALNUM, 5) + "." + _of(draw, ALNUM + "-_", 38)),
    "Discord webhook": _in("https://discord" + ".com/api/webhooks/1045678901234567890/@@", lambda draw: _of(draw, ALNUM, 68)),
    "DigitalOcean": _key("do" + "p_v1_", HEX, 64),
    "Databricks": _key("da" + "pi", HEX, 32),
    "Groq": _key("gs" + "k_", ALNUM, 52),
    "xAI": _key("xa" + "i-", ALNUM, 80),
    "Replicate": _key("r" + "8_", ALNUM, 37),
    "Mailgun": _key("ke" + "y-", HEX, 32),
    "Mailchimp": _key("", HEX, 32, "-us" + "14"),
    "Shopify": _key("sh" + "pat_", HEX, 32),
    "Perplexity": _key("pp" + "lx-", ALNUM, 48),
    "NVIDIA": _key("nv" + "api-", ALNUM + "-_", 64),
    "LangSmith": _key("ls" + "v2_pt_", HEX, 32, "_" + "ab12cd34ef"),
    "Docker": _key("dc" + "kr_pat_", ALNUM, 27),
    "Atlassian": _key("AT" + "ATT3xFfGF0", ALNUM + "-_", 170),
    "Notion": _key("nt" + "n_", ALNUM, 46),
    "Airtable": _in("token @@", lambda draw: "pat" + _of(draw, ALNUM, 14) + "." + _of(draw, HEX, 64)),
    "Grafana": _key("gl" + "sa_", ALNUM, 32, "_" + "ab12cd34"),
    "Vault": _key("hv" + "s.", ALNUM, 24),
    "Terraform": _in("token = \"@@\"", lambda draw: _of(draw, ALNUM, 14) + ".atlas" + "v1." + _of(draw, ALNUM, 67)),
    "Supabase": _key("sb" + "p_", HEX, 40),
    "Square": _key("sq" + "0atp-", ALNUM + "-_", 22),
    "Linear": _key("lin_" + "api_", ALNUM, 40),
    "Alibaba": _key("LT" + "AI5t", ALNUM, 20),
    "Telegram": _in("bot @@", lambda draw: _of(draw, "123456789", 10) + ":AA" + _of(draw, ALNUM + "-_", 33)),
    "JSON web token": _in(("@@", "Authorization: Bearer @@", "token=@@&x=1"), _jwt),
    "JSON web token in a word": _in(("id_token_@@", "x-jwt-@@", "jwt@@"), _jwt),
    "bearer": _in("Authorization: Bearer @@", lambda draw: _of(draw, ALNUM, 40)),
    "basic": _in(("Authorization: Basic @@", "-H 'authorization: basic @@'"), lambda draw: base64.b64encode(f"ann:{_password(draw)}".encode()).decode()),
    "header": _in(("X-API-Key: @@", "x-auth-token: @@", "Authorization: Token @@"), lambda draw: _of(draw, ALNUM, 32)),
    "assigned key": _in(('OPENWEATHER_KEY="@@"', "export MAPS_API_KEY=@@", "const apiKey = '@@';", '"encryption_key": "@@"', "SIGNING_KEY: @@"), lambda draw: _of(draw, ALNUM, 32)),
    "assigned secret": _in(('SECRET_KEY = "@@"', "client_secret: '@@'", "JWT_SECRET=@@", 'consumer_secret="@@"'), lambda draw: _of(draw, ALNUM + "-_", 40)),
    "assigned password": _in(('password = "@@"', "DB_PASSWORD=@@", "pwd: '@@'", '"passwd": "@@"', "MYSQL_ROOT_PASSWORD: @@", "Server=db;User Id=sa;Password=@@;"), _password),
    "said password": _in(("my password is @@", "My password is: @@", "the wifi password is @@", "mi contraseña es @@", "mein Passwort ist @@", "mon mot de passe est @@", "login: ann, password: @@"), _password),
    "password in a URL": _in(("postgres://ann:@@@db.local:5432/x", "mongodb+srv://root:@@@cluster0.ab1cd.mongodb.net/", "https://ann:@@@example.org/x.git"), lambda draw: _of(draw, ALNUM, 12)),
    "password in a URL, no user": _in(("redis://:@@@cache.local:6379/0", "amqp://:@@@mq/"), lambda draw: _of(draw, ALNUM, 14)),
    "curl -u": _in(("curl -u ann:@@ https://api.example.org", "curl -s --user ann:@@ https://x.org", "curl -X GET 'https://x.org' -u 'ann:@@'"), _password),
    "private key": _pem("RSA " + "PRIVATE KEY", "RSA PRIVATE KEY"),
    "private key, OpenSSH": _pem("OPENSSH " + "PRIVATE KEY", "OPENSSH PRIVATE KEY"),
    "private key, encrypted": _pem("RSA " + "PRIVATE KEY", "RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,3F17F5316E2BAC89"),
    "private key, encrypted PKCS 8": _pem("ENCRYPTED " + "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
    "private key, truncated": _pem("RSA " + "PRIVATE KEY", None),
    "private key, PGP": _pem("PGP " + "PRIVATE KEY BLOCK", "PGP PRIVATE KEY BLOCK", "Version: GnuPG v2"),
}  # fmt: skip


def _luhn(draw: Draw, head: str, length: int) -> str:
    body = head + _of(draw, DIGITS, length - len(head) - 1)
    total = sum(sum(divmod(2 * int(digit), 10)) if place % 2 == 0 else int(digit) for place, digit in enumerate(reversed(body)))
    return body + str(-total % 10)


def _card(head: str, length: int, groups: tuple[int, ...] = (), between: str = " ") -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        number = _luhn(draw, head, length)
        cuts = [sum(groups[:place]) for place in range(len(groups) + 1)]
        shown = between.join(number[begin:end] for begin, end in pairwise(cuts)) if groups else number
        return draw.choice(("card {}", "{}", "my card number is {}, exp 04/29", "pay with {} please")).format(shown), shown

    return make


def _iban(country: str, body: Callable[[Draw], str], is_spaced: bool) -> Callable[[Draw], Made]:
    def make(draw: Draw) -> Made:
        account = body(draw)
        number = "".join(str(int(sign, 36)) for sign in account + country + "00")
        whole = f"{country}{98 - int(number) % 97:02d}{account}"
        shown = " ".join(whole[place : place + 4] for place in range(0, len(whole), 4)) if is_spaced else whole
        return draw.choice(("IBAN {}", "please transfer to {} today", "{}")).format(shown), shown

    return make


def _check(weights: tuple[int, ...], digits: str) -> int:
    return sum(weight * int(digit) for weight, digit in zip(weights, digits, strict=True))


def _cpf(draw: Draw) -> str:
    body = _of(draw, "123456789", 9)
    for length in (10, 11):
        body += str(_check(tuple(range(length, 1, -1)), body) * 10 % 11 % 10)
    return f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"


def _ssn(draw: Draw) -> str:
    return f"{draw.randrange(100, 660):03d}-{draw.randrange(10, 99):02d}-{draw.randrange(1000, 9999):04d}"


def _dni(draw: Draw) -> str:
    number = draw.randrange(10_000_000, 99_999_999)
    return f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def _nir(draw: Draw) -> str:
    body = f"{draw.choice('12')}{draw.randrange(40, 99)}{draw.randrange(1, 13):02d}{draw.randrange(10, 95)}{draw.randrange(1, 990):03d}{draw.randrange(1, 999):03d}"
    key = 97 - int(body) % 97
    return f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:]} {key:02d}"


def _pesel(draw: Draw) -> str:
    body = f"{draw.randrange(40, 99)}{draw.randrange(1, 13):02d}{draw.randrange(1, 29):02d}{draw.randrange(10_000):04d}"
    return body + str(-_check((1, 3, 7, 9, 1, 3, 7, 9, 1, 3), body) % 10)


NUMBERS: dict[str, Callable[[Draw], Made]] = {
    "card: Visa": _card("4", 16),
    "card: Visa, spaced": _card("4", 16, (4, 4, 4, 4)),
    "card: Mastercard, hyphens": _card("53", 16, (4, 4, 4, 4), "-"),
    "card: American Express": _card("37", 15, (4, 6, 5)),
    "card: Diners": _card("36", 14, (4, 6, 4)),
    "card: Discover": _card("6011", 16),
    "card: JCB": _card("3530", 16, (4, 4, 4, 4)),
    "card: of the makers' tests": _in(("card @@", "use @@ as test card"), lambda draw: draw.choice(("4111 1111 1111 1111", "4242424242424242", "4242 4242 4242 4242", "5555555555554444", "378282246310005", "4000056655665556", "5105 1051 0510 5100"))),
    "iban: DE": _iban("DE", lambda draw: _of(draw, DIGITS, 18), is_spaced=False),
    "iban: DE, spaced": _iban("DE", lambda draw: _of(draw, DIGITS, 18), is_spaced=True),
    "iban: GB": _iban("GB", lambda draw: _of(draw, UPPER, 4) + _of(draw, DIGITS, 14), is_spaced=True),
    "iban: NL": _iban("NL", lambda draw: "INGB" + _of(draw, DIGITS, 10), is_spaced=False),
    "iban: PL": _iban("PL", lambda draw: _of(draw, DIGITS, 24), is_spaced=True),
    "iban: CH": _iban("CH", lambda draw: _of(draw, DIGITS, 17), is_spaced=False),
    "identity: US SSN": _in(("SSN @@", "my social security number is @@", "@@"), _ssn),
    "identity: US SSN, plain": _in(("SSN: @@", "social security number @@"), lambda draw: _ssn(draw).replace("-", "")),
    "identity: GB NINO": _in(("NI number @@", "@@"), lambda draw: f"{draw.choice(('AB', 'CE', 'JM', 'PR'))} {_of(draw, DIGITS, 2)} {_of(draw, DIGITS, 2)} {_of(draw, DIGITS, 2)} {draw.choice('ABCD')}"),
    "identity: ES DNI": _in(("DNI @@", "mi DNI es @@"), _dni),
    "identity: FR NIR": _in(("numéro de sécurité sociale : @@", "@@"), _nir),
    "identity: BR CPF": _in(("CPF @@", "@@"), _cpf),
    "identity: PL PESEL": _in(("PESEL @@", "mój PESEL to @@"), _pesel),
    "identity: passport": _in(("passport number: @@", "my passport no. is @@", "Reisepassnummer @@", "passport @@"), lambda draw: draw.choice(("", "C", "AB", "X")) + _of(draw, DIGITS, 8)),
    "mac_address": _in(("the MAC is @@", "ether @@ txqueuelen 1000"), lambda draw: ":".join(f"{draw.randrange(256):02x}" for _ in range(5)) + ":af"),
    "ip_address": _in(("server at @@", "http://@@/x", "ping @@"), lambda draw: f"{draw.choice((23, 46, 81, 93, 134, 185))}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}"),
    "ip_address: with a port": _in(("connect to @@:8080", "http://@@:3000/login"), lambda draw: f"{draw.choice((52, 88, 103, 194))}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}"),
    "ip_address: 6 in a URL": _in("http://[@@]:8080/", lambda draw: f"2a01:{_of(draw, HEX, 3)}f:{_of(draw, HEX, 3)}1::{_of(draw, HEX, 3)}2"),
}  # fmt: skip

_NAMES = ("ann", "ben", "carla", "dmitri", "eva", "farid", "grace", "hiro", "ines", "jonas")
_FAMILY = ("lee", "okafor", "muller", "rossi", "nguyen", "silva", "novak", "haddad", "ito", "berg")
_MONTHS = ("January", "March", "April", "June", "August", "October", "December")


def _mail(draw: Draw) -> tuple[str, str]:
    return (
        f"{draw.choice(_NAMES)}.{draw.choice(_FAMILY)}{draw.randrange(100)}",
        f"{draw.choice(('mail', 'example', 'uni-test', 'firm'))}.{draw.choice(('com', 'org', 'de', 'co.uk'))}",
    )


def _spelt_mail(draw: Draw) -> Made:
    user, host = _mail(draw)
    form = draw.choice(("{}(at){}", "{} [at] {}", "{} at {}", "{} (at) {}"))
    dot = draw.choice((" dot ", "[dot]", " (dot) "))
    return "write to " + form.format(user, host.replace(".", dot)) + " please", user


def _when(draw: Draw) -> str:
    year, month, day = draw.randrange(1940, 2010), draw.randrange(1, 13), draw.randrange(1, 29)
    return draw.choice(
        (
            f"{year}-{month:02d}-{day:02d}",
            f"{day}.{month}.{year}",
            f"{month:02d}/{day:02d}/{year}",
            f"{draw.choice(_MONTHS)} {day}, {year}",
            f"{day} {draw.choice(_MONTHS)} {year}",
        )
    )


def _name(draw: Draw) -> str:
    return f"{draw.choice(_NAMES).title()} {draw.choice(_FAMILY).title()}"


PERSONAL: dict[str, Callable[[Draw], Made]] = {
    "email": _in(("write to @@", "mailto:@@", "<@@>"), lambda draw: "@".join(_mail(draw))),
    "email: not in ASCII": _in("write to @@", lambda draw: draw.choice(("jürgen", "иван", "用户", "zoë.ñandú")) + "@" + draw.choice(("exämple.de", "почта.рф", "例子.公司"))),
    "email: spelt out": _spelt_mail,
    "phone: international": _in(("call @@", "tel:@@"), lambda draw: draw.choice(("+44 20 7946 0", "+49 30 23125", "+1 212 736 5", "+34 612 345 ", "+33 6 12 34 5")) + _of(draw, DIGITS, 3)),
    "phone: 00": _in("call @@", lambda draw: draw.choice(("0049 30 23125", "0044 20 7946 0", "0033 6 12 34 5")) + _of(draw, DIGITS, 3)),
    "phone: US": _in(("call @@", "my number is @@"), lambda draw: draw.choice(("(212) 736-5", "415-555-2", "646.820.3", "305 358 4")) + _of(draw, DIGITS, 3)),
    "phone: national, Europe": _in(("call @@", "my number is @@", "Tel. @@"), lambda draw: draw.choice(("020 7946 0", "030 23125", "06 12 34 56 ", "0171 2345", "07911 123", "612 34 5")) + _of(draw, DIGITS, 2 if False else 3)),
    "birth_date": _in(("I was born on @@", "date of birth: @@", "DOB @@", "Geburtsdatum: @@", "my birthday is @@", "nací el @@"), _when),
    "coordinates": _in(("my house is at @@", "GPS: @@", "https://maps.example.org/@@@,17z", "lat/lon @@"), lambda draw: f"{draw.uniform(-60, 60):.5f},{draw.uniform(-170, 170):.5f}"),
    "coordinates: degrees": _in("we meet at @@", lambda draw: f"{draw.randrange(10, 60)}°{draw.randrange(60):02d}'{draw.randrange(60):02d}\"N {draw.randrange(10, 160)}°{draw.randrange(60):02d}'{draw.randrange(60):02d}\"E"),
    "address": _in(("I live at @@", "send it to @@ please"), lambda draw: draw.choice((f"{draw.randrange(1, 999)} {draw.choice(('Maple', 'Old Mill', 'North Park'))} {draw.choice(('Street', 'Ave', 'Road', 'Lane'))}", f"{draw.choice(('Goethe', 'Garten', 'Linden'))}straße {draw.randrange(1, 99)}", f"{draw.randrange(1, 99)} rue de {draw.choice(('Rivoli', 'Lyon'))}", f"Calle {draw.choice(('Mayor', 'Alcalá'))} {draw.randrange(1, 99)}"))),
    "name": _in(("my name is @@", "Hi, I'm @@ and", "Mein Name ist @@.", "me llamo @@", "Regards,\n@@"), _name),
    "name: in a sentence": _in(("@@ told me to ask", "a letter to @@ about the rent"), _name),
}  # fmt: skip

BY_HAND = tuple(
    line
    for line in """
version 1.2.3.4 of the driver, requires >= 10.0.19041.1, built 2023.11.04.1
127.0.0.1, 192.168.1.1, 10.0.0.1, 0.0.0.0/0, 255.255.255.0
1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 4. Ba4 Nf6 5. O-O Be7 6. Re1 b5
rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR w KQkq - 0 1
3.14159265358979323846264338327950288419716939937510
2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71
The answer is 1234567890123456789 mod 998244353.
for (int i = 0; i < 1000000007; ++i) { a[i] = (a[i - 1] * 31 + 7) % 1000000007; }
0xdeadbeef 0xcafebabe 0x7fffffff 0b101010 1e-10 6.02214076e23
def login(username: str, password: str) -> Token: ...
password = getpass.getpass("Password: ")
if password != confirm_password: raise ValueError("passwords differ")
<input type="password" name="password" placeholder="Password" required>
The password is required. The password is incorrect. The password must be at least 8 characters.
api_key = os.environ["OPENAI_API_KEY"]
API_KEY="your-api-key-here"
token = request.headers.get("Authorization")
const token = jwt.sign({ id: user.id }, process.env.JWT_SECRET, { expiresIn: "1d" });
export OPENAI_API_KEY=<your key>
secret_key: ${SECRET_KEY}
PRIMARY KEY (id), FOREIGN KEY (user_id) REFERENCES users(id)
key = lambda pair: (-pair[1], pair[0])
dictionary[key] = value; sort_key = "last_name"
max_tokens=4096, temperature=0.7, top_p=0.95, num_tokens: 128000
tokenizer = AutoTokenizer.from_pretrained("bert-base-uncased")
cache_key = f"user:{user_id}:profile"
"key": "ArrowDown", "keyCode": 40
ISBN 978-3-16-148410-0 and ISSN 2049-3630, DOI 10.1000/182, arXiv:2305.18290v3
UUID 7d444840-9dc0-11d1-b245-5ffdce74fad2
commit 9fceb02d0ae598e95dc970b74767f19372d61af8
sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
RFC 2616, ISO 8601, IEEE 754-2019, DIN EN 60529
He was born on 14 March 1879 in Ulm and died on 18 April 1955.
The Battle of Hastings was fought on 14 October 1066.
2023-04-01, 10.04.2023, 04/10/2023, 2023-11-14T10:00:00Z, 20231114
at 10:30:45, 12:00-13:30, 09:15:00.123456
$1,234,567.89 and 1.234.567,89 EUR, 12,345 items, 99.95 %
The distance is 384400 km; c = 299792458 m/s; G = 6.67430e-11
NGC 224, HD 209458 b, PSR B1919+21
Matrix [[0.12345, 0.67890], [1.23456, 7.89012]]
loss 0.69315, accuracy 0.98765, lr 0.00010
std::vector<std::pair<int, int>> v; std::chrono::seconds
look at the code at line 42 dot product of a and b
@decorator, user@localhost, a @ b.c, git rev HEAD@{1}
git clone git@github.com:org/repo.git
scp a.txt ann@host.example.com:notes
pip install torch==2.1.0.1 transformers==4.35.2
docker run -u 1000:1000 -p 8080:80 nginx:1.25.3
chmod 755 file; umask 022; kill -9 12345
ffmpeg -i in.mp4 -c:v libx264 -crf 23 -b:a 128k out.mp4
SELECT * FROM t WHERE id BETWEEN 100000 AND 200000 LIMIT 50;
lorem ipsum dolor sit amet, consectetur adipiscing elit
Chapter 12, verses 3-16; pages 100-250; Psalm 119:105
Main Street is a novel. Take the second street on the left after 200 yards.
10 Downing Street was in the news.
My name is on the list. My name is not important. I am happy. I'm Looking for help.
A 5 star hotel, room 204, floor 12, flight BA 2490, gate B12
Model XPS 13 9310, part 0K3HNW, S/N withheld
Windows 10.0.22621.2715, Chrome/119.0.0.0 Safari/537.36
bearer of good news, basic needs, Basic knowledge of Python
sk-learn, scikit-learn, task-list, hf_hub, key-value, xai-research
The eye sees what the mind knows. eyJ is how JSON begins in base64.
-----BEGIN CERTIFICATE----- is how a certificate begins
https://example.org/a:b and http://host:8080/@name
https://user:password@example.com and postgres://user:pass@localhost/db
ssh -i ~/.ssh/id_rsa -p 2222 admin@10.0.0.5
color: #ff00aa; background: rgba(12, 34, 56, 0.78); margin: 0 10px 20px 30px;
x = 12 + 34 * 56 - 78 / 90 = 1845.13
(1) 234 (5) 678 (9) and 1-2-3-4-5-6-7-8-9
Q: 17 * 23 = ? A: 391. Q: 123456789 * 987654321 = ? A: 121932631112635269
Fibonacci: 1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597 2584 4181 6765 10946
1010110011110000 1111000011110000 0000111100001111
GTTACGCATGCAATCGTTAGC, MKTAYIAKQRQISFVKSHFSRQ
""".strip().splitlines()
)


def _code(draw: Draw) -> str:
    name, other = (
        draw.choice(("total", "index", "user_id", "token", "key", "count", "secret", "password", "rows", "api_key")) for _ in range(2)
    )
    return draw.choice(
        (
            f"{name} = {other}[{draw.randrange(100)}]",
            f"def {name}_{other}({name}, {other}=None):\n    return {name} + {draw.randrange(10**6)}",
            f"{name} = get_{other}(config.{name}, timeout={draw.randrange(1000)})",
            f'{name} = "{draw.choice(("abc", "name", "id", "default", "https://example.org", "hello world"))}"',
            f"const {name} = await fetch(`/api/{other}/${{id}}`);",
            f"if {name} is None or len({name}) < {draw.randrange(20)}: raise ValueError('{other} is missing')",
            f"import {name}\nfrom {other}.utils import {name}_{other}_v{draw.randrange(9)}",
            f"<div class=\"{name}-{other}-{draw.randrange(99)}\" id='{name}{draw.randrange(999)}'></div>",
            f"self.{name}: dict[str, int] = {{'{other}': {draw.randrange(10**9)}}}",
            f"{name}: {other}.{name}()  # {draw.randrange(10**5)}",
            f"INSERT INTO {name} VALUES ({draw.randrange(10**5)}, '{other}', {draw.random():.4f});",
            f"print(f'{name}: {{{other}}}', {draw.randrange(10**4)})",
        )
    )


def _numbers(draw: Draw) -> str:
    return draw.choice(
        (
            " ".join(str(draw.randrange(10 ** draw.randrange(1, 8))) for _ in range(draw.randrange(3, 12))),
            ", ".join(f"{draw.uniform(-100, 100):.{draw.randrange(1, 7)}f}" for _ in range(draw.randrange(2, 9))),
            f"order {draw.randrange(10**9)} of {draw.randrange(10**6)} items, {draw.randrange(10**4)}-{draw.randrange(10**4)}",
            f"{draw.randrange(10 ** draw.randrange(6, 20))}",
            f"{draw.randrange(1, 10**3)},{draw.randrange(10**3):03d},{draw.randrange(10**3):03d}.{draw.randrange(100):02d}",
            f"{draw.randrange(1900, 2030)}-{draw.randrange(1, 13):02d}-{draw.randrange(1, 29):02d} {draw.randrange(24):02d}:{draw.randrange(60):02d}:{draw.randrange(60):02d}",
            f"invoice {draw.randrange(10**5)}/{draw.randrange(1900, 2030)}, position {draw.randrange(100)}",
            f"{draw.randrange(10**12)} microseconds since {draw.randrange(10**10)}",
            "|".join(f" {draw.randrange(10**6)} " for _ in range(5)),
        )
    )


def _versions(draw: Draw) -> str:
    numbers = [str(draw.randrange(draw.choice((5, 30)))) for _ in range(draw.randrange(2, 5))]
    name = draw.choice(("torch", "numpy", "libssl", "Chrome", "node", "gcc", "driver"))
    return draw.choice(
        (
            f"{name}=={'.'.join(numbers)}",
            f"{name} v{'.'.join(numbers)}-rc{draw.randrange(9)}",
            f"{name}-{'.'.join(numbers)}+build.{draw.randrange(10**6)}",
            f"{name} {'.'.join(numbers)} ({draw.randrange(2010, 2026)}-{draw.randrange(1, 13):02d})",
        )
    )


def _hashes(draw: Draw) -> str:
    return draw.choice(
        (
            _of(draw, HEX, draw.choice((7, 8, 12, 16, 32, 40, 64))),
            f"commit {_of(draw, HEX, 40)}",
            f"sha256:{_of(draw, HEX, 64)}",
            f"md5 {_of(draw, HEX, 32)}  file{draw.randrange(99)}.txt",
            "-".join(_of(draw, HEX, count) for count in (8, 4, 4, 4, 12)),
            _base64(draw, draw.choice((16, 32))),
            f"SHA256:{_base64(draw, 32).rstrip('=')} ann@laptop",
            ":".join(_of(draw, HEX, 2) for _ in range(20)),
            f"index {_of(draw, HEX, 7)}..{_of(draw, HEX, 7)} 100644",
            f"0x{_of(draw, HEX, 16)}",
        )
    )


def _chess(draw: Draw) -> str:
    def piece() -> str:
        moved = draw.choice("NBRQK ").strip() + draw.choice(("", "x"))
        return moved + draw.choice("abcdefgh") + draw.choice("12345678") + draw.choice(("", "+", "#"))

    return " ".join(f"{turn}. {piece()} {piece()}" for turn in range(1, draw.randrange(4, 20)))


def _maths(draw: Draw) -> str:
    a, b, c = (draw.randrange(1, 10 ** draw.randrange(1, 7)) for _ in range(3))
    return draw.choice(
        (
            f"\\frac{{{a}}}{{{b}}} + \\sqrt{{{c}}} = {a / b + c**0.5:.6f}",
            f"{a} + {b} - {c} = {a + b - c}",
            f"({a} - {b}) / ({c} + 1) = {(a - b) / (c + 1):.10f}",
            f"x^2 - {a}x + {b} = 0, so x = {a / 2:.4f} ± {c / 3:.4f}",
            f"({a}, {b}), ({b}, {c}), ({c}, {a})",
            f"[{a / 7:.5f}, {b / 7:.5f}]",
            f"{a} × {b} = {a * b}; {a * b} × {c} = {a * b * c}",
            f"P(A) = {draw.random():.8f}, P(B) = {draw.random():.8f}",
            f"mod({a * b * c}, {a}) = 0, gcd = {a}",
        )
    )


_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "you",
    "that",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "I",
    "his",
    "they",
    "be",
    "at",
    "one",
    "have",
    "this",
    "from",
    "or",
    "had",
    "by",
    "hot",
    "but",
    "some",
    "what",
    "there",
    "we",
    "can",
    "out",
    "other",
    "were",
    "all",
    "your",
    "when",
    "up",
    "use",
    "word",
    "how",
    "said",
    "an",
    "each",
    "she",
    "which",
    "do",
    "their",
    "time",
    "if",
    "will",
    "way",
    "about",
    "many",
    "then",
    "them",
    "would",
    "write",
    "like",
    "so",
    "these",
    "her",
    "long",
    "make",
    "thing",
    "see",
    "him",
    "two",
    "has",
    "look",
    "more",
    "day",
    "could",
    "go",
    "come",
    "did",
    "my",
    "sound",
    "no",
    "most",
    "number",
    "who",
    "over",
    "know",
    "water",
    "than",
    "call",
    "first",
    "people",
    "may",
    "down",
    "side",
    "been",
    "now",
    "find",
    "any",
    "new",
    "work",
    "part",
    "take",
    "get",
    "place",
    "made",
    "live",
    "where",
    "after",
    "back",
    "little",
    "only",
    "round",
    "man",
    "year",
    "came",
    "show",
    "every",
    "good",
    "me",
    "give",
    "our",
    "under",
    "name",
    "very",
    "through",
    "just",
    "form",
    "much",
    "great",
    "think",
    "say",
    "help",
    "low",
    "line",
    "before",
    "turn",
    "cause",
    "same",
    "mean",
    "differ",
    "move",
    "right",
    "boy",
    "old",
    "too",
    "does",
    "tell",
    "sentence",
    "set",
    "three",
    "want",
    "air",
    "well",
    "also",
    "play",
    "small",
    "end",
    "put",
    "home",
    "read",
    "hand",
    "port",
    "large",
    "spell",
    "add",
    "even",
    "land",
    "here",
    "must",
    "big",
    "high",
    "such",
    "follow",
    "act",
    "why",
    "ask",
    "men",
    "change",
    "went",
    "light",
    "kind",
    "off",
    "need",
    "house",
    "picture",
    "try",
    "us",
    "again",
    "animal",
    "point",
    "mother",
    "world",
    "near",
    "build",
    "self",
    "earth",
    "father",
    "head",
    "stand",
    "own",
    "page",
    "should",
    "country",
    "found",
    "answer",
    "school",
    "grow",
    "study",
    "still",
    "learn",
    "plant",
    "cover",
    "food",
    "sun",
    "four",
    "thought",
    "let",
    "keep",
    "eye",
    "never",
    "last",
    "door",
    "between",
    "city",
    "tree",
    "cross",
    "since",
    "hard",
    "start",
    "might",
    "story",
    "saw",
    "far",
    "sea",
    "draw",
    "left",
    "late",
    "run",
    "while",
    "press",
    "close",
    "night",
    "real",
    "life",
    "few",
    "stop",
    "password",
    "key",
    "token",
    "secret",
    "card",
    "phone",
    "email",
    "address",
    "passport",
    "born",
    "street",
]


def _prose(draw: Draw) -> str:
    text = " ".join(draw.choices(_WORDS, k=draw.randrange(8, 40)))
    return text.capitalize() + draw.choice((".", "?", f" {draw.randrange(2030)}.", f", page {draw.randrange(400)}."))


def _logs(draw: Draw) -> str:
    return draw.choice(
        (
            f"[{draw.randrange(10**5)}.{draw.randrange(10**6):06d}] usb {draw.randrange(9)}-{draw.randrange(9)}: new device number {draw.randrange(99)}",
            f"File \"/home/app/main.py\", line {draw.randrange(900)}, in <module>\nKeyError: 'token_{draw.randrange(99)}'",
            f"Epoch {draw.randrange(99)}/{draw.randrange(100, 200)} - loss: {draw.random():.4f} - val_loss: {draw.random():.4f}",
            f"GET /v1/items/{draw.randrange(10**8)}?page={draw.randrange(99)}&size=50 200 {draw.randrange(900)}ms",
            f"http://localhost:{draw.randrange(3000, 9000)}/users/{draw.randrange(10**6)}",
            f"pid={draw.randrange(10**5)} tid={draw.randrange(10**6)} 127.0.0.1:{draw.randrange(10**4)} -> 10.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}:443",
        )
    )


GENERATORS: dict[str, Callable[[Draw], str]] = {
    "code": _code,
    "numbers": _numbers,
    "versions": _versions,
    "hashes": _hashes,
    "chess": _chess,
    "maths": _maths,
    "prose": _prose,
    "logs": _logs,
}


def secrets(seed: int) -> Iterator[tuple[str, str, str, str]]:
    """Group, kind, text and secret of everything that should be found."""
    draw = Draw(seed)
    for group, makers in (("keys", KEYS), ("numbers with a check", NUMBERS), ("personal data", PERSONAL)):
        for kind, make in makers.items():
            for _ in range(EACH):
                yield group, kind, *make(draw)


def harmless(seed: int) -> Iterator[tuple[str, str]]:
    """Kind and text of what should be left alone."""
    draw = Draw(seed)
    yield from (("by hand", text) for text in BY_HAND)
    for kind, make in GENERATORS.items():
        for _ in range((HARMLESS - len(BY_HAND)) // len(GENERATORS)):
            yield kind, make(draw)


def _share(found: int, of: int) -> str:
    low, high = wilson(found / of, of)
    return f"{found:5,} of {of:5,}  {found / of:6.1%}  ({low:.1%} to {high:.1%})"


def measure(seed: int, *, shows: bool) -> None:
    """Print recall and false hits by kind."""
    rows = list(secrets(seed))
    after = redact(pl.Series([text for _, _, text, _ in rows]), RedactionSettings())[0].to_list()
    found = [secret not in text for (_, _, _, secret), text in zip(rows, after, strict=True)]
    for group in dict.fromkeys(group for group, *_ in rows):
        kinds = dict.fromkeys(kind for of, kind, *_ in rows if of == group)
        print(
            f"{group:34}{_share(sum(hit for hit, row in zip(found, rows, strict=True) if row[0] == group), sum(row[0] == group for row in rows))}"
        )
        for kind in kinds:
            of = [hit for hit, row in zip(found, rows, strict=True) if row[1] == kind]
            print(f"  {kind:32}{sum(of)} of {len(of)}")
    if shows:
        print(
            *(f"missed {kind}: {text!r} -> {now!r}" for (_, kind, text, _), now, hit in zip(rows, after, found, strict=True) if not hit),
            sep="\n",
        )
    left = list(harmless(seed))
    texts, kinds = redact(pl.Series([text for _, text in left]), RedactionSettings())
    hits = [bool(each) for each in kinds.to_list()]
    print(f"{'harmless strings hit':34}{_share(sum(hits), len(left))}")
    for kind in dict.fromkeys(kind for kind, _ in left):
        of = [hit for hit, (which, _) in zip(hits, left, strict=True) if which == kind]
        print(f"  {kind:32}{_share(sum(of), len(of))}")
    print("  as", dict(Counter(kind for each in kinds.to_list() for kind in each)))
    if shows:
        print(
            *(f"hit {kind}: {text!r} -> {now!r}" for (kind, text), now, hit in zip(left, texts.to_list(), hits, strict=True) if hit),
            sep="\n",
        )


def ingest(size: int, rounds: int) -> None:
    """Print CPU seconds of an ingest with redaction and without, by turns; of each the least."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shaped.parquet"
        write(file, size)
        least: dict[str, float] = {}
        for _ in range(rounds):
            for name, settings in (("redacted", RedactionSettings()), ("not redacted", RedactionSettings(kinds=()))):
                source = SourceSettings(
                    name="shaped",
                    kind=SourceKind.WILDCHAT,
                    location=str(file),
                    assumed_start=datetime(2023, 4, 1, tzinfo=UTC),
                    redaction=settings,
                )
                started = time.process_time()
                sum(1 for _ in judge(source, list(month_counts(source)), "benchmark").conversations())
                least[name] = min(least.get(name, float("inf")), time.process_time() - started)
        print(f"{size:,} conversations: {least['redacted']:.2f} s of CPU with redaction, {least['not redacted']:.2f} s without")


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(prog="python benchmarks/redaction.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0, help="of the generators (default %(default)s)")
    parser.add_argument("--show", action="store_true", help="list what was missed and what was hit")
    parser.add_argument("--ingest", type=int, metavar="CONVERSATIONS", help="measure the time of an ingest instead")
    parser.add_argument("--rounds", type=int, default=3, help="times each ingest is run (default %(default)s)")
    given = parser.parse_args()
    if given.ingest:
        ingest(given.ingest, given.rounds)
    else:
        measure(given.seed, shows=given.show)


if __name__ == "__main__":
    main()
