"""Judge every row of a source: accepted, or rejected for one `Reason`.

What belongs here: the rules, in the order of `Reason`, and the search for repeats. What does not: what becomes of accepted rows
(``ingest``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rlhi_dagster.base.tables import TIME
from rlhi_dagster.conversations import Reason, templates
from rlhi_dagster.conversations.sources import SourceRows, SourceSettings, is_plausible

ROW = ("source_file", "row_number")
"""What identifies a row of a source."""

# Role codes, one letter a message: the order of roles is judged by regular expressions over a string such as "suauau".
_CODES = {"user": "u", "assistant": "a", "system": "s"}
_NO_MESSAGE, _UNKNOWN_ROLE, EMPTY, UNFIT = "-", "?", "e", "x"
_DIALOGUE = "u.*a"
"""In role codes, the answered part of a conversation, which the rules judge: from the first user message to the last reply."""
# What no text should have: NUL and the noncharacters, two at the end of every plane. UTF-8 itself is checked when files are decoded.
_PLANES = "".join(rf"\x{{{plane:X}FFFE}}\x{{{plane:X}FFFF}}" for plane in range(1, 17))
_NO_CHARACTER = rf"[\x{{FDD0}}-\x{{FDEF}}\x{{FFFE}}\x{{FFFF}}{_PLANES}]"
_LEGIBLE = r"[^\s\p{Cf}]"  # not white space, nor marks of no width
_REPLACEMENT = "\ufffd"
_CHARACTERS_PER_REPLACEMENT = 20


@dataclass(frozen=True, slots=True)
class _Rule:
    """When a row is rejected, and what is said about it (never with text of a message)."""

    reason: Reason
    is_broken: pl.Expr
    detail: pl.Expr


def verdicts(rows: SourceRows, settings: SourceSettings, now: datetime, is_forgotten: pl.Expr) -> pl.DataFrame:
    """Judge every row of the source; what comes back has digests in place of text.

    ``is_forgotten`` says of normalised rows whether their user was forgotten; of those no id comes back either.

    Columns: ``source_file``, ``row_number``, ``month``, ``started_at``, ``conversation_id``, ``codes`` (roles; ``UNFIT`` for closing user
    messages that must be left out), ``signature`` (of the opening request, see ``templates``), ``superseded``, ``reason`` and ``detail``
    (null if accepted).
    """
    judged = rows.collect(lambda scanned: _judged(scanned.with_columns(is_forgotten.alias("is_forgotten")), settings, now))
    return _with_repeats(judged).drop("content_hash")


def _judged(rows: pl.LazyFrame, settings: SourceSettings, now: datetime) -> pl.LazyFrame:
    """Apply the rules to normalised rows; repeats are looked for afterwards."""
    message = pl.element().struct
    text, role = message.field("content"), message.field("role")
    is_empty = ~text.str.contains(_LEGIBLE).fill_null(value=False)
    code = (
        pl.when(pl.element().is_null()).then(pl.lit(_NO_MESSAGE))
        .when(is_empty & role.is_in(list(_CODES))).then(pl.lit(EMPTY))
        .otherwise(role.replace_strict(_CODES, default=_UNKNOWN_ROLE, return_dtype=pl.String))
    )  # fmt: skip
    messages = pl.col("messages")
    is_left_out = is_empty | (role == "system")
    is_illegible = text.map_batches(_illegible, return_dtype=pl.Boolean(), is_elementwise=True)
    lengths = messages.list.eval(pl.when(~is_left_out).then(text.str.len_chars()))
    illegible = messages.list.eval((is_illegible & ~is_left_out).fill_null(value=False))
    hashes = messages.list.eval(text.hash().cast(pl.String)).list.join(",")
    codes = pl.col("codes")
    rules = _rules(settings, now)
    return (
        rows.with_columns(messages.list.eval(code).list.join("").alias("codes"))
        .with_columns(
            codes.str.find("u", literal=True).cast(pl.Int64).alias("offset"), codes.str.extract(f"({_DIALOGUE})").alias("dialogue")
        )
        .select(
            *ROW,
            "month",
            "conversation_id",
            "assistant",
            "started_at",
            "is_toxic",
            "language",
            "is_forgotten",
            "superseded",
            "unreadable",
            "unreadable_detail",
            "codes",
            "offset",
            pl.col("dialogue").str.count_matches("[ua]").alias("kept"),
            messages.is_null().alias("has_no_list"),
            _answered(lengths).alias("lengths"),
            _answered(illegible).alias("illegible"),
            _unanswered(lengths).list.max().alias("longest_unanswered"),
            _unanswered(illegible).list.any().alias("is_unanswered_illegible"),
            templates.signatures(messages.list.get(pl.col("offset"), null_on_oob=True).struct.field("content")).alias("signature"),
            pl.when(pl.col("user_key").is_not_null())
            .then(pl.concat_str(pl.col("user_key").hash().cast(pl.String), "codes", hashes, separator=":", ignore_nulls=True).hash())
            .alias("content_hash"),
        )
        .select(
            *ROW,
            "month",
            pl.when(~pl.col("is_forgotten")).then("conversation_id").alias("conversation_id"),
            _without_unfit_end(settings).alias("codes"),
            "signature",
            "content_hash",
            pl.when(~pl.col("is_forgotten")).then("superseded").alias("superseded"),
            pl.coalesce("started_at", pl.lit(settings.assumed_start, TIME)).alias("started_at"),
            pl.coalesce(pl.when(rule.is_broken).then(pl.lit(rule.reason.value)) for rule in rules).alias("reason"),
            pl.coalesce(pl.when(rule.is_broken).then(rule.detail) for rule in rules).alias("detail"),
        )
        .with_columns(_if_not_superseded("reason"), _if_not_superseded("detail"))
    )


def _illegible(texts: pl.Series) -> pl.Series:
    """Whether each text has what no text should have, or too many characters that could not be decoded; most are ASCII, quickly seen."""
    found = texts.str.contains("\x00", literal=True)
    odd = (texts.str.len_bytes() > texts.str.len_chars()).arg_true()
    suspects = texts.gather(odd)
    many = suspects.str.count_matches(_REPLACEMENT, literal=True) * _CHARACTERS_PER_REPLACEMENT > suspects.str.len_chars()
    return found.scatter(odd, found.gather(odd) | suspects.str.contains(_NO_CHARACTER) | many)


def _if_not_superseded(column: str) -> pl.Expr:
    return pl.when(pl.col("superseded").is_null()).then(column).alias(column)


def _answered(per_message: pl.Expr) -> pl.Expr:
    """The part of a list, parallel to the messages, from the first user message to the last reply."""
    return per_message.list.slice(pl.col("offset"), pl.col("dialogue").str.len_bytes().cast(pl.Int64).fill_null(0))


def _unanswered(per_message: pl.Expr) -> pl.Expr:
    """The part of a list, parallel to the messages, after the last reply."""
    return per_message.list.slice(pl.col("offset") + pl.col("dialogue").str.len_bytes().cast(pl.Int64))


def _without_unfit_end(settings: SourceSettings) -> pl.Expr:
    """Role codes, closing user messages marked if the limits or the legibility of messages forbid them: they cost no conversation."""
    codes = pl.col("codes")
    is_unfit = (
        pl.col("is_unanswered_illegible")
        | (pl.col("longest_unanswered") > settings.max_message_characters)
        | (codes.str.slice(pl.col("offset")).str.count_matches("[ua]") > settings.max_messages)
    )
    return (
        pl.when(is_unfit)
        .then(pl.concat_str(codes.str.extract("^(.*a)"), codes.str.extract("([^a]*)$").str.replace_all("u", UNFIT)))
        .otherwise(codes)
    )


def _rules(settings: SourceSettings, now: datetime) -> list[_Rule]:
    """Rules in the order of `Reason`, over the columns that `verdicts` prepares; repeats are looked for afterwards."""
    codes = pl.col("codes")
    no_id = pl.col("conversation_id").str.strip_chars().fill_null("") == ""
    no_assistant = pl.col("assistant").str.strip_chars().fill_null("") == ""
    missing = pl.concat_str(
        pl.when(no_id).then(pl.lit("conversation id")),
        pl.when(pl.col("has_no_list")).then(pl.lit("message list")),
        pl.when(no_assistant).then(pl.lit("model")),
        separator=", ",
        ignore_nulls=True,
    )
    longest = pl.col("lengths").list.max()
    unreadable = (Reason.UNREADABLE_ROW_GROUP, Reason.UNREADABLE_JSON, Reason.MISTYPED_FIELD)
    is_other_language = ~pl.col("language").is_in(settings.languages).fill_null(False) if settings.languages else pl.lit(False)
    return [
        *(_Rule(reason, pl.col("unreadable") == reason.value, pl.col("unreadable_detail")) for reason in unreadable),
        _Rule(Reason.USER_FORGOTTEN, pl.col("is_forgotten"), pl.lit("the user has a tombstone")),
        _Rule(Reason.MISSING_FIELD, no_id | pl.col("has_no_list") | no_assistant, pl.format("no {}", missing)),
        _Rule(
            Reason.NOT_A_LIST_OF_MESSAGES,
            (codes == "") | codes.str.contains(_NO_MESSAGE, literal=True),
            pl.when(codes == "").then(pl.lit("the list is empty")).otherwise(_at(codes, _NO_MESSAGE, "is no message")),
        ),
        _Rule(
            Reason.UNKNOWN_ROLE,
            codes.str.contains(_UNKNOWN_ROLE, literal=True),
            _at(codes, _UNKNOWN_ROLE, "is neither of the user, the assistant, a tool nor the system"),
        ),
        _Rule(
            Reason.NO_USER_MESSAGE,
            ~codes.str.contains("u", literal=True),
            pl.format("{} message(s), none of a user in words", codes.str.len_bytes()),
        ),
        _Rule(Reason.UNANSWERED_ONLY, ~codes.str.contains(_DIALOGUE), pl.format("{} message(s), no reply", codes.str.len_bytes())),
        _Rule(Reason.INVALID_UNICODE, pl.col("illegible").list.any(), pl.format("message {} is not legible text", _first("illegible"))),
        _Rule(
            Reason.MESSAGE_TOO_LONG,
            longest > settings.max_message_characters,
            pl.format(
                "message {} has {} characters; at most {} are accepted",
                pl.col("lengths").list.arg_max() + pl.col("offset"),
                longest,
                pl.lit(settings.max_message_characters),
            ),
        ),
        _Rule(
            Reason.CONVERSATION_TOO_LONG,
            pl.col("kept") > settings.max_messages,
            pl.format("{} messages; at most {} are accepted", "kept", pl.lit(settings.max_messages)),
        ),
        _Rule(
            Reason.IMPOSSIBLE_TIMESTAMP,
            ~is_plausible(pl.col("started_at"), now),
            pl.format("started at {}", pl.col("started_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
        ),
        _Rule(Reason.TOXIC, pl.col("is_toxic") & settings.drop_toxic, pl.lit("flagged by the source")),
        _Rule(
            Reason.LANGUAGE,
            is_other_language,
            pl.when(pl.col("language").is_null()).then(pl.lit("no language")).otherwise(pl.lit("another language")),
        ),
    ]


def _at(codes: pl.Expr, code: str, what: str) -> pl.Expr:
    return pl.format("message {} {}", codes.str.find(code, literal=True), pl.lit(what))


def _first(flags: str) -> pl.Expr:
    """Position, in the source's list, of the first message that a flag is set for."""
    return pl.col(flags).list.eval(pl.element().cast(pl.UInt8)).list.arg_max() + pl.col("offset")


def _with_repeats(judged: pl.DataFrame) -> pl.DataFrame:
    """Reject the rows that repeat an earlier accepted one by id, or by content of the same user."""
    suspects = (
        judged.filter(pl.col("reason").is_null(), pl.col("superseded").is_null())
        .filter(pl.col("conversation_id").is_duplicated() | (pl.col("content_hash").is_not_null() & pl.col("content_hash").is_duplicated()))
        .sort("started_at", *ROW)
    )
    seen: dict[tuple[str, str | int], str] = {}
    repeats: list[tuple[str, int, str]] = []
    for file, number, conversation_id, content_hash in suspects.select(*ROW, "conversation_id", "content_hash").iter_rows():
        same_id, same_content = ("id", conversation_id), ("content", content_hash)
        if same_id in seen:
            repeats.append((file, number, f"same conversation id as {seen[same_id]}"))
        elif content_hash is not None and same_content in seen:
            repeats.append((file, number, f"same messages of the same user as {seen[same_content]}"))
        else:
            seen[same_id] = seen[same_content] = f"{file}#{number}"
    found = pl.DataFrame(repeats, schema={"source_file": pl.String, "row_number": pl.Int64, "repeats": pl.String}, orient="row")
    return (
        judged.join(found, on=ROW, how="left")
        .with_columns(
            pl.when(pl.col("repeats").is_not_null()).then(pl.lit(Reason.DUPLICATE_CONVERSATION.value)).otherwise("reason").alias("reason"),
            pl.coalesce("detail", "repeats").alias("detail"),
        )
        .drop("repeats")
    )
