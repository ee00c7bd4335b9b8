"""Prompts of corpora: every row gives one or is counted and named, and each prompt counts once."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.cli import main
from rlhi_dagster.conversations import Reason
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback.diversity.corpora import NO_OPENING_REQUEST, Context, Corpus, CorpusKind, CorpusSettings, detect, distinct, read

DATA = Path(__file__).parents[2] / "../shared/data"


def dialogue(*messages: str) -> str:
    """Messages in turn, the person first."""
    return "".join(f"\n\n{'Assistant' if number % 2 else 'Human'}: {message}" for number, message in enumerate(messages))


HH_ROWS = [
    {"chosen": dialogue("tulips?", "40 cm", "and roses?", "1 m"), "rejected": dialogue("tulips?", "40 cm", "and roses?", "no")},
    {"chosen": dialogue("tulips?", "red ones"), "rejected": dialogue("tulips?", "no")},
    {"chosen": dialogue("ferns?\n\nThe shady kind.", "green"), "rejected": dialogue("ferns?", "no")},
    {"chosen": "\n\nAssistant: hello", "rejected": dialogue("x", "y")},
    {"chosen": dialogue("nobody replies"), "rejected": dialogue("x", "y")},
    {"chosen": dialogue("  ", "to nothing"), "rejected": dialogue("x", "y")},
    {"chosen": None, "rejected": dialogue("x", "y")},
    {"rejected": dialogue("x", "y")},
]
HELPSTEER_ROWS = [
    {"prompt": "tulips?", "response": "40 cm", "helpfulness": 4},
    {"prompt": "tulips?", "response": "no", "helpfulness": 0},
    {"prompt": "roses?\n<extra_id_1>Assistant\n1 m\n<extra_id_1>User\nand ferns?\n", "response": "green", "helpfulness": 3},
    {"prompt": "", "response": "?", "helpfulness": 1},
    {"prompt": ["roses?"], "response": "?", "helpfulness": 1},
]


def written(file: Path, rows: list[dict], broken: str = "") -> str:
    lines = "\n".join(json.dumps(row) for row in rows) + "\n" + broken
    file.write_bytes(gzip.compress(lines.encode()) if file.suffix == ".gz" else lines.encode())
    return str(file)


def corpus(location: str, kind: CorpusKind, context: Context = Context.OPENING_REQUEST) -> Corpus:
    return read(CorpusSettings(name="corpus", kind=kind, location=location), context)


def test_hh_rlhf_gives_opening_requests_and_names_the_other_rows(tmp_path) -> None:
    location = written(tmp_path / "train.jsonl.gz", HH_ROWS, broken='{"chosen": "cut of')
    found = corpus(location, CorpusKind.HH_RLHF)
    assert found.prompts["prompt"].to_list() == ["ferns?\n\nThe shady kind.", "tulips?"]
    assert found.prompts["user_id"].n_unique() == 2
    assert found.rows == 9
    assert found.broken.select("row_number", "reason").rows() == [
        (3, NO_OPENING_REQUEST),
        (4, NO_OPENING_REQUEST),
        (5, NO_OPENING_REQUEST),
        (6, Reason.MISSING_FIELD),
        (7, Reason.MISSING_FIELD),
        (8, Reason.UNREADABLE_JSON),
    ]
    assert found.broken["file"].unique().to_list() == [location]
    assert found.account == (
        "corpus: 9 rows, 6 without a prompt (no_opening_request 3, missing_field 2, unreadable_json 1), 2 distinct prompts"
    )


def test_the_other_context_is_everything_before_the_last_reply(tmp_path) -> None:
    hh = corpus(written(tmp_path / "hh.jsonl", HH_ROWS), CorpusKind.HH_RLHF, Context.CONVERSATION)
    assert "tulips?\n\n40 cm\n\nand roses?" in hh.prompts["prompt"].to_list()
    helpsteer = corpus(written(tmp_path / "helpsteer.jsonl", HELPSTEER_ROWS), CorpusKind.HELPSTEER2, Context.CONVERSATION)
    assert helpsteer.prompts["prompt"].to_list() == ["roses?\n\n1 m\n\nand ferns?", "tulips?"]


def test_helpsteer2_prompts_end_at_the_first_mark(tmp_path) -> None:
    found = corpus(written(tmp_path / "train.jsonl.gz", HELPSTEER_ROWS), CorpusKind.HELPSTEER2)
    assert found.prompts["prompt"].to_list() == ["roses?", "tulips?"]
    assert found.broken.select("row_number", "reason").rows() == [(3, NO_OPENING_REQUEST), (4, Reason.MISTYPED_FIELD)]


def test_parquet_reads_like_json_lines_and_survives_a_damaged_row_group(tmp_path) -> None:
    rows = [{"prompt": f"flower {number}?", "response": "?"} for number in range(40)]
    file = tmp_path / "train.parquet"
    pl.DataFrame(rows).write_parquet(file, row_group_size=10, compression="uncompressed", use_pyarrow=True)
    assert len(corpus(str(file), CorpusKind.HELPSTEER2).prompts) == 40
    content = file.read_bytes()
    page = content.index(b"flower 20?") - 60
    file.write_bytes(content[:page] + b"\xff" * 60 + content[page + 60 :])
    found = corpus(str(file), CorpusKind.HELPSTEER2)
    assert found.rows == 40
    assert set(found.broken["reason"]) == {Reason.UNREADABLE_ROW_GROUP}
    assert len(found.prompts) == 40 - len(found.broken) > 0


def test_what_is_no_such_corpus_is_an_error_that_names_it(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"none\.jsonl"):
        corpus(str(tmp_path / "none.jsonl"), CorpusKind.HH_RLHF)
    with pytest.raises(ValueError, match=r"no row of .* of the kind hh_rlhf"):
        corpus(written(tmp_path / "helpsteer.jsonl", HELPSTEER_ROWS), CorpusKind.HH_RLHF)
    file = tmp_path / "other.parquet"
    pl.DataFrame({"text": ["x"]}).write_parquet(file)
    with pytest.raises(ValueError, match=r"no row of .*other\.parquet gives a prompt; is it of the kind helpsteer2"):
        corpus(str(file), CorpusKind.HELPSTEER2)


def test_kinds_are_told_by_their_columns(tmp_path) -> None:
    assert detect(written(tmp_path / "a.jsonl", HH_ROWS)) is CorpusKind.HH_RLHF
    assert detect(written(tmp_path / "b.jsonl", HELPSTEER_ROWS)) is CorpusKind.HELPSTEER2
    assert detect(written(tmp_path / "c.jsonl", [{"messages": []}])) is CorpusKind.CONVERSATIONS


def test_conversations_give_prompts_with_their_users(tmp_path) -> None:
    messages = [{"role": role, "content": text} for role, text in (("user", " roses? "), ("assistant", "1 m"), ("user", "red"))]
    reply = {"role": "assistant", "content": "yes"}
    rows = [
        {"conversation_id": "a", "user_id": "ann", "messages": [*messages, reply]},
        {"conversation_id": "b", "user_id": "ann", "messages": messages[:2]},
        {"conversation_id": "c", "user_id": "bob", "messages": [{"role": "user", "content": "ferns?"}, reply]},
        {"conversation_id": "d", "user_id": "bob", "messages": [messages[0]]},
        {"conversation_id": "e", "user_id": "bob", "messages": [messages[2], reply, {"role": "user", "content": "no, white"}]},
    ]
    location = written(tmp_path / "logs.jsonl", rows)
    found = corpus(location, CorpusKind.CONVERSATIONS)
    assert sorted(found.prompts["prompt"]) == ["ferns?", "red", "roses?"]
    assert found.prompts["user_id"].n_unique() == 2
    assert (found.rows, found.broken["reason"].to_list()) == (5, [Reason.UNANSWERED_ONLY])
    whole = corpus(location, CorpusKind.CONVERSATIONS, Context.CONVERSATION)
    assert sorted(whole.prompts["prompt"]) == ["ferns?", "red", "roses?", "roses? \n\n1 m\n\nred"], "without the last word"


def test_a_prompt_belongs_to_its_first_user_whatever_the_order() -> None:
    prompts = pl.DataFrame({"prompt": ["b", " a ", "a", "a"], "user_id": ["u2", "u3", "u1", "u2"], "template_id": ["t", None, None, None]})
    assert distinct(prompts).sort("prompt").rows() == [("a", "u1"), ("b", "u2")]
    assert distinct(prompts).equals(distinct(prompts.reverse()))
    assert distinct(prompts.select("prompt")).rows() == [("a", "000000000"), ("b", "000000001")]


def test_the_command_compares_files_and_names_what_is_wrong(tmp_path, monkeypatch, capsys) -> None:
    def hashed(_self: MiniLM, texts: list[str]) -> np.ndarray:
        return np.array([np.random.default_rng(list(text.encode())).normal(size=16) for text in texts])

    monkeypatch.setattr(MiniLM, "embed", hashed)
    many = written(tmp_path / "many.jsonl", [{"prompt": f"flower {number}?", "response": "?"} for number in range(60)])
    hh = written(tmp_path / "pairs.jsonl", HH_ROWS)
    monkeypatch.setattr(sys, "argv", ["rlhi", "diversity", f"flowers={many}", hh])
    main.main()
    printed = capsys.readouterr()
    assert "pairs: 8 rows, 5 without a prompt" in printed.err
    assert "all-MiniLM-L6-v2" in printed.out
    assert printed.out.count("flowers") == 2
    monkeypatch.setattr(sys, "argv", ["rlhi", "diversity", str(tmp_path / "none.jsonl")])
    with pytest.raises(SystemExit, match=r"none\.jsonl"):
        main.main()


def test_the_real_sample_of_hh_rlhf_reads_whole() -> None:
    if not (DATA / "hh_rlhf").is_dir():
        pytest.skip(f"real data is not at hand: {DATA / 'hh_rlhf'}")
    found = corpus(str(DATA / "hh_rlhf"), CorpusKind.HH_RLHF)
    assert (found.rows, len(found.broken), len(found.prompts)) == (2_137, 0, 1_916)
