"""Odd files, rebuilt after what people met: of each what is read, what is not and why, as one finds it by reading the file."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import zstandard

from rlhi_dagster.conversations import Reason, Repair
from rlhi_dagster.conversations.ingest import Ingested, ingest
from rlhi_dagster.conversations.sources import SourceKind, SourceRows, SourceSettings, detect_kind, month_counts

ODD = Path(__file__).parents[2] / "../shared/data/odd_inputs"
NOW = datetime(2027, 1, 1, tzinfo=UTC)
START = datetime(2023, 6, 1, tzinfo=UTC)
MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)

pytestmark = pytest.mark.skipif(not ODD.is_dir(), reason=f"the odd files are not at hand: {ODD}")


def settings(location: Path | str, kind: SourceKind | None = None) -> SourceSettings:
    found = detect_kind(str(location)) if kind is None else kind
    return SourceSettings(name="odd", kind=found, location=str(location), assumed_start=START, assumed_model="assumed")


def run(location: Path | str) -> Ingested:
    source = settings(location)
    return ingest(source, list(month_counts(source, now=NOW)), "salt", now=NOW)


def texts(found: Ingested) -> dict[str, list[str]]:
    rows = found.conversations.select("conversation_id", pl.col("messages").list.eval(pl.element().struct.field("content"))).iter_rows()
    return dict(rows)


def column(found: Ingested, name: str) -> dict[str, object]:
    return dict(found.conversations.select("conversation_id", name).iter_rows())


@dataclass(frozen=True)
class Read:
    """What becomes of the rows of a file."""

    accepted: int
    quarantined: dict[Reason, int] = field(default_factory=dict)
    superseded: int = 0
    users: int | None = None
    kind: SourceKind = SourceKind.MESSAGES


MISTYPED, NO_WORDS, JSON = Reason.MISTYPED_FIELD, Reason.NO_USER_MESSAGE, Reason.UNREADABLE_JSON
TWO = Read(2)
THREE = Read(3, users=1)
PARQUET_TIMES = ("allnull", "date", "float_s", "int_ms", "int_s", "naive", "ns", "offset_tz", "oslo", "str_iso")
CASES = {
    "01_tool_calls_null_content": Read(5),
    "02_conversations_role_content": TWO,
    "03_sharegpt_role_aliases": Read(12),
    "04_role_case": Read(7),
    "05_times": Read(18, {MISTYPED: 6, Reason.IMPOSSIBLE_TIMESTAMP: 3}),
    "06_user_ids": Read(24, {MISTYPED: 1}, users=19),
    "07_conversation_ids": Read(14, {Reason.DUPLICATE_CONVERSATION: 2}),
    "08_unicode": Read(15, {Reason.INVALID_UNICODE: 6}),
    "09_duplicate_keys": Read(1, {NO_WORDS: 1}),
    "10_bom_crlf": THREE,
    "11_utf16": THREE,
    "12_json_array_as_jsonl": THREE,
    "13_json_array_one_line": THREE,
    "14_json_extension": THREE,
    "15_ndjson_ext": TWO,
    "16_uppercase_ext": TWO,
    "17_cr_only": THREE,
    "18_concatenated_no_newline": THREE,
    "19_pretty_printed": THREE,
    "20_bom_each_part": TWO,
    "21_nul_padding": TWO,
    "22_rs_json_seq": THREE,
    "23_gz_trailing_garbage": THREE,
    "24_gz_trailing_zeros": THREE,
    "27_gz_really_plain": THREE,
    "28_plain_really_gz": THREE,
    "29_gz_bad_crc": Read(3, {JSON: 1}),
    "30_gz_truncated_tail": Read(3, {JSON: 1}),
    "32_empty_first_shard": TWO,
    "33_broken_first_shard": Read(2, {JSON: 1}),
    "34_content_parts": Read(12, {NO_WORDS: 3, Reason.UNANSWERED_ONLY: 1}),
    "35_reasoning": Read(6),
    "36_systems": Read(13, {NO_WORDS: 1, Reason.UNKNOWN_ROLE: 2}),
    "37_consecutive_users": Read(7, {Reason.UNANSWERED_ONLY: 1}, users=7),
    "38_growing_prefix_log": Read(1, superseded=2),
    "39_gz_big_trailing_garbage": Read(3000),
    "40_gz_big_trailing_zeros": Read(3000),
    "41_gz_big_bad_crc": Read(3000, {JSON: 1}),
    "42_gz_big_no_trailer": Read(3000, {JSON: 1}),
    "43_gz_big_truncated_half": Read(1474, {JSON: 1}),
    "44_gz_second_member_garbage": Read(1500, {JSON: 1}),
    "45_column_order_and_extra": Read(4, users=3),
    "47_large_and_dict_types": Read(4, users=3),
    "48_dict_role": TWO,
    "49_fixed_list": TWO,
    "50_string_view": TWO,
    **{f"51_parquet_time_{name}": TWO for name in PARQUET_TIMES},
    "52_zero_rows_first": TWO,
    "53_zero_rows_only": Read(0),
    "54_null_typed_zero_rows": TWO,
    "55_empty_table_no_columns": TWO,
    "56_user_type_drift": Read(6, users=3),
    "58_user_empty_string": Read(4, users=4),
    "59_user_binary_uuid": Read(2, users=2),
    "60_user_struct": Read(2, users=2),
    "61_messages_json_string": TWO,
    "62_content_parts_parquet": TWO,
    "63_struct_of_lists": TWO,
    "64_list_of_maps": TWO,
    "69_spark_folder": TWO,
    "71_metadata_file": TWO,
    "72_hive": Read(4),
    "74_mixed_kinds": Read(3),
    "75_mixed_wildchat_lmsys": Read(2, kind=SourceKind.WILDCHAT),
    **{f"80_toxic_{name}": Read(1, {Reason.TOXIC: 1}) for name in ("int", "float", "str")},
    "83_wildchat_variants": Read(
        15, {Reason.MISSING_FIELD: 1, Reason.DUPLICATE_CONVERSATION: 1}, kind=SourceKind.WILDCHAT
    ),
    "84_glob_forms": Read(3, {Reason.DUPLICATE_CONVERSATION: 3}),
    "85_bracket_folder": THREE,
    "87_bracket_wrong_file": Read(3, {Reason.DUPLICATE_CONVERSATION: 1}),
    "88_user_binary_not_utf8": Read(2, users=2),
    "89_duckdb_uuid": Read(3, users=3),
    "90_duckdb_json_time": Read(3, users=1),
    "91_duckdb_gz": Read(3, users=1),
    "94_datasets_to_parquet": Read(3, users=3),
    "95_datasets_to_json": Read(3, users=3),
    "96_datasets_tool_drift": TWO,
    "97_datasets_arrow": Read(3, users=3),
    "98_zst_concatenated_and_skippable": Read(3000, users=1),
    "A0_zst_truncated": Read(2903, {JSON: 1}),
    "A1_lmsys_variants": Read(10, {Reason.TOXIC: 1}, kind=SourceKind.LMSYS),
    "A2_lmsys_without_moderation": Read(1),
    "A7_openwebui_flat_regenerated": TWO,
    "B1_finetune_jsonl": Read(2, users=2),
    "B2_messages_and_conversations": Read(1),
    "B3_messages_with_model_start": Read(1),
    "B4_dup_by_text_no_user": Read(3, users=3),
    "B5_dup_by_text_no_id_no_user": Read(1, {Reason.DUPLICATE_CONVERSATION: 2}),
    "B6_field_order_first_line": Read(1, {Reason.MISSING_FIELD: 1}),
    "B7_first_line_other": Read(1, {Reason.MISSING_FIELD: 1}),
    "B8_user_object": Read(3, users=2),
    "B9_created_at": Read(2, users=1),
    "C0_message_times": Read(4),
    "C1_deep_nesting": Read(2, {JSON: 2}),
    "C2_big_int": TWO,
    "C3_infinity": Read(4, users=4),
    "D1_one_prompt": Read(1),
    **{f"D2_parquet_message_timestamp_{name}": TWO for name in ("empty_str", "float", "int", "str")},
    "D3_double_encoded": TWO,
    "D5_misc_ids": Read(6),
    "D6_output_in_source": THREE,
    "D8_spark_output_dirs": Read(3, users=3),
    "DA_other_endings_beside": Read(4),
    "DB_arrow_uuid": Read(2, users=2),
    "DC_time64_decimal": Read(2, users=2),
    "F0_run_source": Read(42),
    "F1_single_turn_only": Read(24),
    "F2_all_quarantined": Read(24),
    "F3_one_user": Read(24, users=24),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_row_is_read_or_told(case: str) -> None:
    expected = CASES[case]
    found = run(ODD / case)
    assert detect_kind(str(ODD / case)) is expected.kind
    assert len(found.conversations) == expected.accepted
    assert dict(found.quarantine.group_by("reason").len().iter_rows()) == expected.quarantined
    assert len(found.superseded) == expected.superseded
    assert sum(found.rows_in.values()) == expected.accepted + sum(expected.quarantined.values()) + expected.superseded
    assert expected.users in (None, found.conversations["user_id"].n_unique())


REFUSED = {
    "25_gz_empty_file": r"a\.jsonl\.gz is empty$",
    "26_gz_empty_member": r"a\.jsonl\.gz is empty$",
    "31_empty_jsonl": r"a\.jsonl is empty$",
    "65_not_parquet": r"a\.parquet cannot be read as Parquet: it is a pointer of Git LFS: fetch the file itself",
    "66_zero_bytes_parquet": r"a\.parquet cannot be read as Parquet: Parquet file size is 0 bytes",
    "67_truncated_parquet": r"a\.parquet cannot be read as Parquet: Parquet magic bytes not found in footer",
    "68_parquet_one_bad_of_two": r"b\.parquet cannot be read as Parquet",
    "78_case_columns": r"a\.parquet has objects with Created, ID, Messages, Model, User\. Looked for .*messages: a list of messages",
    "79_duplicate_columns": r"a\.parquet has more than one column with the name user",
    "82_huge": r"no file that ends in .* left out: 1 without an ending",
    "D0_gold": r"no file that ends in .* left out: 11 \.csv",
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_a_sentence_that_names_the_file(case: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[case]):
        run(ODD / case)


@pytest.mark.parametrize(
    "case", ["29_gz_bad_crc", "30_gz_truncated_tail", "41_gz_big_bad_crc", "42_gz_big_no_trailer", "44_gz_second_member_garbage"]
)
def test_damage_says_where_it_is(case: str) -> None:
    (file,) = (ODD / case).iterdir()
    (detail,) = run(ODD / case).quarantine["detail"]
    (place,) = re.findall(r"at byte ([\d,]+)", detail)
    assert 0 < int(place.replace(",", "")) <= file.stat().st_size


def test_every_line_that_a_decompressor_delivers_is_a_row() -> None:
    compressed = (ODD / "43_gz_big_truncated_half/a.jsonl.gz").read_bytes()
    delivered = zlib.decompressobj(wbits=31).decompress(compressed)
    assert delivered.count(b"\n") == CASES["43_gz_big_truncated_half"].accepted
    delivered = zstandard.ZstdDecompressor().decompressobj().decompress((ODD / "A0_zst_truncated/a.jsonl.zst").read_bytes())
    assert delivered.count(b"\n") == CASES["A0_zst_truncated"].accepted


def test_times_in_all_spellings() -> None:
    starts = column(run(ODD / "05_times"), "started_at")
    fractions = {"t01": 500_000, "t02": 123_000, "t04": 123_000, "t05": 123_456, "t07": 123_000, "t10": 123_456, "t24": 123_000}
    others = {"t11": datetime(2023, 11, 14, tzinfo=UTC), "t12": datetime(2023, 11, 14, 16, 43, 20, tzinfo=UTC), "t15": START, "t16": START}
    names = [*(f"t{number:02}" for number in (*range(14), 15, 16, 23, 24))]
    assert starts == {name: others.get(name, MOMENT.replace(microsecond=fractions.get(name, 0))) for name in names}
    cases = {
        "allnull": START,
        "date": datetime(2023, 11, 14, tzinfo=UTC),
        "float_s": MOMENT.replace(microsecond=500_000),
        "int_ms": MOMENT.replace(microsecond=123_000),
    }
    for name in PARQUET_TIMES:
        assert set(column(run(ODD / f"51_parquet_time_{name}"), "started_at").values()) == {cases.get(name, MOMENT)}, name


def test_a_missing_start_is_the_earliest_message_and_a_bad_message_time_is_cleared() -> None:
    found = run(ODD / "C0_message_times")
    assert set(column(found, "started_at").values()) == {MOMENT}
    assert column(found, "repairs") == {"y": [], "z": [Repair.CLEARED_TIME], "z3": [Repair.CLEARED_TIME], "z4": []}
    assert set(column(run(ODD / "B9_created_at"), "started_at").values()) == {MOMENT}
    assert set(column(run(ODD / "90_duckdb_json_time"), "started_at").values()) == {MOMENT}


def test_a_user_has_one_name_in_whatever_type() -> None:
    users = column(run(ODD / "06_user_ids"), "user_id")
    alike = ("c00", "c01", "c02", "c18"), ("c21", "c22"), ("c23", "c24")
    assert [len({users[name] for name in names}) for names in alike] == [1, 1, 1]
    by_type = column(run(ODD / "56_user_type_drift"), "user_id")
    assert by_type["c0"] == by_type["c2"] == by_type["c4"]
    assert by_type["c1"] == by_type["c5"] != by_type["c3"]
    decimals = column(run(ODD / "DC_time64_decimal"), "user_id")
    assert decimals["c0"] == by_type["c0"]
    objects = column(run(ODD / "60_user_struct"), "user_id")
    assert objects["c0"] == users["c00"]


def test_the_users_of_wildchat_are_those_of_address_and_header() -> None:
    def user(row: dict[str, object]) -> object:
        header = row.get("header")
        header = json.loads(header) if isinstance(header, str) else header
        ip = row.get("hashed_ip")
        client = None if header is None else (header.get("accept-language"), header.get("user-agent"))
        return (ip, client) if ip else row["conversation_hash"]

    lines = (ODD / "83_wildchat_variants/a.jsonl").read_text().splitlines()
    expected = {row["conversation_hash"]: user(row) for row in map(json.loads, lines)}
    found = column(run(ODD / "83_wildchat_variants"), "user_id")
    assert len({(expected[name], user_id) for name, user_id in found.items()}) == len(set(found.values()))
    assert len({expected[name] for name in found}) == len(set(found.values()))


def test_texts_of_parts_thoughts_and_halves_of_characters() -> None:
    parts = texts(run(ODD / "34_content_parts"))
    assert parts["p0"][0] == "describe\n[image]"
    assert parts["p2"] == ["hi\nthere", "A cat."] == parts["p3"]
    assert parts["p9"] == ["q", "no"]
    assert parts["q4"] == ["12", "A number."]
    thoughts = texts(run(ODD / "35_reasoning"))
    assert {tuple(said) for said in thoughts.values()} == {("2+2", "4", "shorter please", "4"), ("2+2\n\nshorter please", "4")}
    unicode = texts(run(ODD / "08_unicode"))
    assert (unicode["m17"][0], unicode["m18"][0], unicode["m20"][1]) == ("cut ", "pair \U0001f600 ok", "b ")
    assert texts(run(ODD / "09_duplicate_keys"))["d1"][0] == "second"


def test_folders_give_their_values_as_columns() -> None:
    found = run(ODD / "72_hive")
    assert column(found, "assistant") == {"c0": "gpt-4", "c1": "gpt-4", "c2": "llama 3", "c3": "llama 3"}
    pattern = run(f"{ODD}/72_hive/model=*/*/*.parquet")
    assert pattern.conversations.equals(found.conversations)


def test_the_path_of_a_file_is_that_file_whatever_characters_it_has() -> None:
    named = run(ODD / "87_bracket_wrong_file/export[1].jsonl")
    assert (len(named.conversations), sum(named.rows_in.values())) == (3, 3)
    assert len(run(ODD / "87_bracket_wrong_file/export1.jsonl").conversations) == 1
    (folder,) = (ODD / "85_bracket_folder").iterdir()
    assert [len(run(place).conversations) for place in (folder, f"{folder}/*", f"{ODD}/85_bracket_folder/*/*.jsonl")] == [3, 3, 3]
    assert len(run(f"{ODD}/D8_spark_output_dirs/*.parquet").conversations) == 3


@pytest.mark.parametrize(
    ("case", "account"),
    [
        ("69_spark_folder", "1 file read; left out: 2 hidden or of a system, 1 in folders of temporary files or checkpoints"),
        ("71_metadata_file", "1 file read; left out: 2 hidden or of a system"),
        ("97_datasets_arrow", "1 file read; left out: 2 of the library datasets"),
        ("DA_other_endings_beside", "4 files read; left out: 1 .bz2, 1 .1, 1 .part"),
        ("D8_spark_output_dirs", "2 files read; left out: 1 hidden or of a system"),
    ],
)
def test_the_account_says_which_files_were_left_out(case: str, account: str) -> None:
    assert SourceRows(settings(ODD / case)).found.account == account


def test_no_case_is_forgotten() -> None:
    of_others = {
        "A3_arena_pairs",
        "A4_chatgpt_export",
        "A5_chatgpt_export_lines",
        "A6_openwebui_export",
        "A8_oasst",
        "A9_batch_api",
        "B0_batch_output",
    }
    no_logs = {"D4_redaction", "H0_prm800k", "H1_math", "README.md"}
    links = {"76_same_by_symlink", "77_dangling_symlink"}  # links do not survive copying: made anew in test_conversations_files
    assert {path.name for path in ODD.iterdir()} == CASES.keys() | REFUSED.keys() | of_others | no_logs | links
