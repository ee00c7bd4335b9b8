"""Keys, tokens, passwords and private keys.

What belongs here: the forms that makers give their keys, after the rules of gitleaks and detect-secrets, and where people write down
secrets without a form: assignments, headers, URLs, commands, sentences. What does not: numbers of people and things
(``redaction.numbers``).
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import base64
import binascii
import re

from rlhi_dagster.conversations.redaction.rule import Rule, Span, has_any, if_is, matches, whole

_STARTS = [
    "sk-",
    "sk_",
    "rk_live_",
    "rk_test_",
    "pk_live_",
    "pk_test_",
    "whsec_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "glptt-",
    "gldt-",
    "glrt-",
    "gloas-",
    "glcbt-",
    "glsa_",
    "glc_",
    "xoxa-",
    "xoxb-",
    "xoxe-",
    "xoxo-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
    "xapp-",
    "GOCSPX-",
    "ya29.",
    "hf_",
    "api_org_",
    "SG.",
    "npm_",
    "pypi-",
    "dop_v1_",
    "doo_v1_",
    "dor_v1_",
    "dapi",
    "gsk_",
    "xai-",
    "r8_",
    "key-",
    "pplx-",
    "nvapi-",
    "lsv2_",
    "dckr_pat_",
    "ATATT3",
    "ATCTT3",
    "ntn_",
    "secret_",
    "hvs.",
    "hvb.",
    "hvr.",
    "sbp_",
    "sq0atp-",
    "sq0csp-",
    "lin_api_",
    "LTAI",
    "AKID",
    "shpat_",
    "shpca_",
    "shppa_",
    "shpss_",
    "pscale_tkn_",
    "pcsk_",
    "tvly-",
    "fw_",
    "figd_",
    "PMAK-",
    "NRAK-",
    "sntrys_",
    "sntryu_",
    "dp.pt.",
    "dp.st.",
    "rubygems_",
    "xkeysib-",
    "CLOJARS_",
    "HRKU-",
    "tfp_",
    "vercel_",
    "rpa_",
    "jina_",
    "key_live_",
    "key_test_",
    "AGE-SECRET-KEY-1",
]
"""With what keys begin: those of OpenAI and who copied its form, Stripe, GitHub, GitLab, Slack, Google, Hugging Face, SendGrid, npm, PyPI,
DigitalOcean, Databricks, Groq, xAI, Replicate, Mailgun, Perplexity, NVIDIA, LangSmith, Docker, Atlassian, Notion, Vault, Supabase, Square,
Linear, Alibaba, Tencent, Shopify, PlanetScale, Pinecone, Tavily, Fireworks, Figma, Postman, New Relic, Sentry, Doppler, RubyGems and others."""
_TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, _STARTS))})[A-Za-z0-9_-]{{16,}}+(?:\.[A-Za-z0-9_-]{{6,}}+){{0,4}}+")
_FORM = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:
        (?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?![0-9A-Za-z])                          # AWS
      | AIza[A-Za-z0-9_-]{35}                                                       # Google
      | (?:SK|AC)[0-9a-f]{32}(?![0-9A-Za-z])                                        # Twilio
      | [0-9a-f]{32}-us\d{1,2}(?!\w)                                                # Mailchimp
      | \d{8,10}:AA[A-Za-z0-9_-]{33}                                                # Telegram
      | [A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}                                # Azure
      | [A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,}                                # Terraform
      | pat[A-Za-z0-9]{14}\.[0-9a-f]{64}                                            # Airtable
      | [MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}             # Discord
    )
    """,
    re.VERBOSE,
)
_WEBHOOK = re.compile(
    r"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/|[?&]sig=)([A-Za-z0-9_/+%-]{20,}+=*)"
)
_WEB_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}+(?:\.[A-Za-z0-9_-]*+){0,4}+")
_HEADER = re.compile(r"(?:[Bb]earer|[Aa]uthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:[A-Za-z]{2,12}\s)?)\s{0,3}([A-Za-z0-9._~+/-]{16,}+=*)")
_BASIC = re.compile(r"[Bb]asic\s{1,3}([A-Za-z0-9+/]{8,}+={0,2})")
_NAMED = re.compile(
    r"""
    (?P<what>key|token|secret|credentials?|passw(?:or)?d|passwd|passwort|kennwort|contraseña|senha|pwd|pass)
    [A-Za-z0-9_]{0,12}(?:["'`\]]{1,2})?[ \t]{0,3}(?:[:=]|:=|=>)>?[ \t]{0,3}
    (?: (?P<quote>["'`])(?P<quoted>[^"'`\s]{4,300}) | (?P<bare>[^\s"'`<>,;(){}\[\]]{4,300}) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SAID = re.compile(
    r"""
    (?P<what>passwor[dt]|kennwort|contraseña|mot\ de\ passe|senha|пароль|passcode|passphrase|\bpin)
    (?:\ (?:for|für|de|para|от|to|of)\ \S{1,20}(?:\ \S{1,20})?)?
    (?:\ (?:is|ist|es|est|é|was)|\ ?[-—])(?:\ ?:)?\ ["'“«`]?(?P<secret>[^\s"'”»`]{4,64})
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NAMED_SIGN = (
    r"(?i:key|token|secret|credential|passw|passwort|kennwort|contraseña|senha|pwd|pass)[A-Za-z0-9_]{0,16}[\"'`\]]{0,2}[ \t]{0,3}(?:[:=]|=>)>?"
    r"[ \t]{0,3}[\"'`]?[^\s\"'`<>,;(){}\[\]]{0,40}[0-9!@#$%^&*?+~|§]"
)
_SAID_SIGN = r"(?i:passwor[dt]|kennwort|contraseña|mot de passe|senha|пароль|passcode|passphrase|pin)[^\n]{0,45} (?i:is|ist|es|est|é|was|-|—)(?: ?:)? [^\s]{0,30}[0-9!@#$%^&*?+~|§]"
_IN_URL = re.compile(r"(?<=://)([^\s/:@<>\"']{0,64}):([^\s/@<>\"']{3,128})(?=@[\w.\[-])")
_IN_COMMAND = re.compile(
    r"\b(?:curl|wget|http)\b[^\n]{0,300}?\s(?:-u|--user)[ =]?[\"']?(?P<user>[^\s:\"']{1,64}):(?P<password>[^\s\"']{3,128})"
    r"|\bsshpass -p ?[\"']?(?P<alone>[^\s\"']{3,128})"
)
_PRIVATE = re.compile(
    r"""
    -----BEGIN\ (?:[A-Z0-9]{1,12}\ ){0,3}PRIVATE\ KEY(?:\ BLOCK)?-----
    (?:
        [^-]{1,20000}+(?:-(?!----)[^-]{0,20000}+){0,60}+-----END\ (?:[A-Z0-9]{1,12}\ ){0,3}PRIVATE\ KEY(?:\ BLOCK)?-----
      | (?:(?:\s|\\[nr]|["'+]|[A-Za-z][A-Za-z-]{2,20}:\ [^\n]{1,100}\n)*+[A-Za-z0-9+/=]{16,}+)++  # cut off
        (?:\s{1,2}[A-Za-z0-9+/]{1,15}=*(?=\n|\Z))?
    )
    """,
    re.VERBOSE,
)

_PLACEHOLDER = re.compile(
    r"\A(?:[\W_]*+(?:your|my_|the|some|test|example|sample|dummy|fake|xx+|change|enter|insert|placeholder|todo|none|null|undefined|true|false|redacted)"
    r"|[$<{%*]|(?:user(?:name)?|login|admin|root|pass(?:word)?|passwd|pwd|secret|token|key|string|str)\d{0,3}\Z|https?:|process\.|os\.|\.\.\.)",
    re.IGNORECASE,
)
_COMPOUND = re.compile(
    r"(?:[A-Za-z0-9][_-]|api|access|secret|private|auth|account|subscription|encryption|signing|master|license) ?\Z", re.IGNORECASE
)
_INSIDE = re.compile(r"\d[A-Za-z]")
_SPECIAL = frozenset("!@#$%^&*?+~|§")
_SHORT, _LONG = 8, 16


def _is_random(text: str, least: int = 10) -> bool:
    """Whether a piece of it is letters and digits together, or letters in mixed case, as no word and no name in code is."""
    for piece in re.split(r"[-_.~+/=]", text):
        digits, upper = sum(map(str.isdigit, piece)), sum(map(str.isupper, piece))
        lower = len(piece) - digits - upper
        is_long = len(piece) >= least and len(set(piece)) >= 3
        if is_long and ((digits >= 2 and upper + lower >= 2) or (upper >= 4 and lower >= 4 and len(piece) >= 20)):
            return True
        if len(piece) >= 6 and len(text) >= 20 and upper >= 2 and lower >= 2 and _INSIDE.search(piece):
            return True
    return False


def _token(match: re.Match[str]) -> Span | None:
    return match.span() if _is_random(match[0]) else None


def _web_token(match: re.Match[str]) -> Span | None:
    parts = match[0].rstrip(".").split(".")
    is_signed = len(parts) in (2, 3) and parts[1].startswith("eyJ") and len(parts[1]) >= 10
    return (match.start(), match.start() + len(match[0].rstrip("."))) if is_signed or len(parts) == 5 else None


def _is_basic(text: str) -> bool:
    try:
        said = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return ":" in said and said.isprintable()


def _named(match: re.Match[str]) -> Span | None:
    """The value that is given to a name like a secret's, if it looks like one."""
    group = "quoted" if match["quoted"] else "bare"
    value, what = match[group].rstrip(".,;:)&"), match["what"].lower()
    value = value.split("&")[0] if group == "bare" and "&" in value[_LONG:] else value
    if not value or _PLACEHOLDER.match(value):
        return None
    if what.startswith(("pass", "pwd", "kenn", "contra", "senha")):
        is_one = _is_password(value, is_quoted=group == "quoted")
    else:
        before = match.string[max(match.start() - 16, 0) : match.start()]
        is_named = what != "key" or _COMPOUND.search(before) is not None or (before[-1:].islower() and match["what"][0] == "K")
        is_one = is_named and len(value) >= _LONG and _is_random(value)
    start = match.start(group)
    return (start, start + len(value)) if is_one else None


def _is_password(value: str, *, is_quoted: bool) -> bool:
    has_digit, has_special = any(map(str.isdigit, value)), not _SPECIAL.isdisjoint(value)
    has_letter = any(map(str.isalpha, value))
    is_mixed = has_letter and value.lower() != value != value.upper()
    if is_quoted:
        return (has_digit and (has_letter or len(value) >= _SHORT)) or (has_special and has_letter)
    return (has_digit and has_special) or (has_digit and is_mixed and "." not in value) or (has_digit and has_letter and value.isalnum())


def _said(match: re.Match[str]) -> Span | None:
    value = match["secret"].rstrip(".,;:)?") if len(match["secret"].rstrip(".,;:)?!")) > 3 else ""
    has_digit = any(map(str.isdigit, value))
    is_number = match["what"].lower() in ("pin", "passcode")
    is_one = (has_digit and (is_number or not value.isdigit() or len(value) > 5)) or not _SPECIAL.isdisjoint(value.rstrip("!"))
    start = match.start("secret")
    return (start, start + len(value)) if value and is_one and not _PLACEHOLDER.match(value) else None


def _in_url(match: re.Match[str]) -> Span | None:
    """User and password, but not the `user:password` of an example."""
    user, password = match.groups()
    is_example = _PLACEHOLDER.match(password) and (not user or _PLACEHOLDER.match(user))
    return None if is_example else match.span()


def _in_command(match: re.Match[str]) -> Span | None:
    if match["alone"]:
        return None if _PLACEHOLDER.match(match["alone"]) else match.span("alone")
    return None if _PLACEHOLDER.match(match["password"]) else (match.start("user"), match.end("password"))


WORDS = (
    "private key", "://", "basic ", " -u", "--user", "sshpass", "key", "token", "secret", "credential", "pass", "kennwort", "contrase", "senha", "pwd", "парол", "pin ",
)  # fmt: skip
"""One of these is where a rule of `NAMED` finds something, in small letters."""
NAMED = (
    Rule(has_any(("PRIVATE KEY",)), _PRIVATE, whole),
    Rule(has_any(("://",)), _IN_URL, _in_url, re.compile("@")),
    Rule(has_any(("asic ",)), _BASIC, if_is(_is_basic, 1)),
    Rule(has_any((" -u", "--user", "sshpass")), _IN_COMMAND, _in_command),
    Rule(matches(_NAMED_SIGN), _NAMED, _named),
    Rule(matches(_SAID_SIGN), _SAID, _said),
)
RUN = r"[A-Za-z0-9_-]{18}|Q~"
"""This is where a rule of `FORMED` finds something, a pattern for Polars."""
FORMED = (
    Rule(has_any(_STARTS), _TOKEN, _token),
    Rule(
        matches(
            r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}|AIza|(?:SK|AC)[0-9a-f]{32}|[0-9a-f]{32}-us|:AA[A-Za-z0-9_-]{33}|Q~|\.atlasv1\."
            r"|pat[A-Za-z0-9]{14}\.|[MNO][A-Za-z0-9_-]{22,27}\.[A-Za-z0-9_-]{6}\."
        ),
        _FORM,
        whole,
    ),
    Rule(has_any(("hooks.slack.com/", "/api/webhooks/", "sig=")), _WEBHOOK, lambda match: match.span(1)),
    Rule(has_any(("eyJ",)), _WEB_TOKEN, _web_token),
    Rule(
        has_any(("earer", "uthorization")),
        _HEADER,
        if_is(lambda text: _is_random(text) or (len(text) >= 20 and any(map(str.isdigit, text))), 1),
    ),
)
