"""``rlhi label``: every row accounted for, the source's own ids and positions, one file written whole, errors without a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.cli import main
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback.labels import offline
from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
from rlhi_dagster.feedback.labels.follow_ups import ClassifierLabeller

WILDCHAT = Path(__file__).parents[2] / "../shared/data/wildchat"
SCHEMA = {
    "conversation_hash": pl.String(),
    "model": pl.String(),
    "timestamp": pl.Datetime("us", "UTC"),
    "conversation": pl.List(pl.Struct({"role": pl.String(), "content": pl.String()})),
    "toxic": pl.Boolean(),
}

Run = Callable[..., None]


def hashed(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors that depend on the text alone: an encoder without meaning."""
    vectors = np.array([np.random.default_rng(list(text.encode())).normal(size=384) for text in texts]).reshape(-1, 384)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def row(conversation_hash: str, *messages: str, started_at: datetime | None = None, toxic: bool = False) -> dict[str, object]:
    """Messages are written ``u: text``, ``a: text`` or ``s: text``."""
    roles = {"u": "user", "a": "assistant", "s": "system"}
    conversation = [{"role": roles[message[0]], "content": message[3:]} for message in messages]
    return {
        "conversation_hash": conversation_hash,
        "model": "m",
        "timestamp": started_at,
        "conversation": conversation,
        "toxic": toxic,
    }


ROWS = [
    row("b:1", "u: tulips?", "a: 40 cm", "u: thanks!", "a: Gladly.", started_at=datetime(2023, 4, 2, tzinfo=UTC)),
    row("a", "s: be brief", "u: and", "u: roses?", "a: 1 m", "u: make it longer", "a: One metre.", "u: in Spanish", "a: Un metro."),
    row("c", "u: peonies?", "a: 80 cm", "u: again", started_at=datetime(2023, 6, 2, tzinfo=UTC)),
    row("toxic", "u: lilies?", "a: 1 m", "u: more", "a: 2 m", toxic=True),
    row("empty", "u: asters?", "a: "),
    row("single", "u: ferns?", "a: green"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "logs.parquet"
    pl.DataFrame(ROWS, schema=SCHEMA).write_parquet(path)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, without an encoder and without settings of a run."""
    monkeypatch.setattr(MiniLM, "embed", lambda self, texts: hashed(texts))
    for name in ("DAGSTER_HOME", "RLHI_PROFILE", "RLHI_SOURCE", "RLHI_SALT", "RLHI_DATA"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object, command: str = "label") -> None:
        monkeypatch.setattr(sys, "argv", ["rlhi", command, *map(str, arguments)])
        main.main()

    return call


def test_every_row_is_accounted_for(source: Path) -> None:
    found = offline.read_follow_ups(str(source))
    assert (found.rows_in, found.accepted, found.quarantined) == (6, 4, {"toxic": 1, "unanswered_only": 1})
    assert found.account == "6 rows in = 4 accepted + 2 quarantined (toxic 1, unanswered_only 1)"


def test_follow_ups_keep_the_source_s_ids_and_positions(source: Path) -> None:
    classifier = FeedbackClassifier.load()
    labels = offline.label_follow_ups(offline.read_follow_ups(str(source)).frame, ClassifierLabeller(classifier, hashed))
    # The system message and the first of two merged messages count; nobody answered the follow-up of "c".
    assert labels.select("conversation_hash", "message_index", "is_unanswered").rows() == [
        ("a", 4, False),
        ("a", 6, False),
        ("b:1", 2, False),
        ("c", 2, True),
    ]
    assert set(labels["label"]) <= set(classifier.labels)
    assert labels["probability"].is_between(1 / 6, 1).all()


def test_labels_do_not_depend_on_how_many_are_made_at_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, seen = offline.read_follow_ups(str(source)).frame, []
    labeller = ClassifierLabeller(FeedbackClassifier.load(), hashed)
    whole = offline.label_follow_ups(frame, labeller)
    monkeypatch.setattr(offline, "AT_ONCE", 2)
    parts = offline.label_follow_ups(frame, labeller, lambda done, total: seen.append((done, total)))
    assert seen == [(2, 4), (4, 4)]
    assert parts.drop("probability", "reattempt_probability").equals(whole.drop("probability", "reattempt_probability"))
    np.testing.assert_allclose(parts["probability"], whole["probability"])


@pytest.mark.parametrize("ending", ["csv", "parquet", "CSV"])
def test_the_ending_decides_the_format(ending: str, source: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"labels.{ending}"
    out.write_text("an earlier result")
    run(source, out)
    written = pl.read_parquet(out) if ending == "parquet" else pl.read_csv(out)
    assert tuple(written.columns) == offline.COLUMNS
    assert written["message_index"].to_list() == [4, 6, 2, 2]
    assert written["is_unanswered"].to_list() == [False, False, False, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, source.name])
    told = capsys.readouterr()
    assert "6 rows in = 4 accepted + 2 quarantined" in told.err
    assert "labelling: 4 of 4" in told.err
    assert "4 follow-ups labelled" in told.out


def test_a_source_without_follow_ups_gives_an_empty_file(run: Run, tmp_path: Path) -> None:
    for name, rows in (("none", []), ("single", ROWS[-1:])):
        source, out = tmp_path / f"{name}.parquet", tmp_path / f"{name}.csv"
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(source)
        run(source, out)
        assert out.read_text() == "conversation_hash,message_index,is_unanswered,label,probability\n"


@pytest.mark.parametrize("command", ["label", "rates"])
def test_a_source_of_which_nothing_is_accepted_ends_with_a_code_of_its_own(
    command: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "refused.parquet", tmp_path / "out.csv"
    pl.DataFrame(ROWS[3:5], schema=SCHEMA).write_parquet(source)
    with pytest.raises(SystemExit) as left:
        run(source, *([out] if command == "label" else []), command=command)
    assert left.value.code == 3
    account = "2 rows in = 0 accepted + 2 quarantined (toxic 1, unanswered_only 1)"
    assert f"rlhi: no row of {source} is accepted: {account}" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(SystemExit):
        run("--help", command=command)
    assert "3 no row of the source was accepted" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("location", ["", "  "])
@pytest.mark.parametrize("command", ["label", "rates", "diversity"])
def test_a_location_that_is_none_is_told(command: str, location: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"^rlhi: '{location}' .*: give a file, a folder, a glob or an hf:// path$"):
        run(location, *([tmp_path / "out.csv"] if command == "label" else []), command=command)


def test_given_labels_are_scored(source: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = tmp_path / "gold.csv"
    gold.write_text("conversation_hash,message_index,label,confidence\na,4,reattempt_with_feedback,3\nb:1,2,positive,3\nb:1,0,other,1\n")
    run(source, tmp_path / "out.csv", "--labels", gold)
    told = capsys.readouterr().out
    assert "matched: 2; unmatched: 1 given, 2 of ours" in told
    assert "n = 2 of 2 conversations" in told
    assert "Cohen's kappa" not in told


def test_rates_of_given_labels_leave_partly_labelled_conversations_out(
    source: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = tmp_path / "gold.csv"
    gold.write_text("conversation_hash,message_index,label\na,4,reattempt_with_feedback\nb:1,2,positive\nc,2,other\n")
    run(source, "--labels", gold, command="rates")
    told = capsys.readouterr()
    # "a" has a second follow-up without a label; "b:1", "c" and "single" are left: five user messages, two of them follow-ups, of which
    # one is a last word.
    assert "3 conversations, 1 left out for follow-ups without a label" in told.out
    (messages,) = [
        line.split() for line in told.out.splitlines() if line.startswith("all") and "user_messages" in line and "included" in line
    ]
    assert messages[3] == "0.0%"
    assert messages[-3:] == ["5", "1", "3"]
    assert "of them unanswered" in told.out.splitlines()[2]
    assert "Nearest to 26.51% of user messages" in told.out
    assert "6 rows in = 4 accepted + 2 quarantined" in told.err
    assert "replaced in messages: nothing" in told.err
    gold.write_text("conversation_hash,message_index,label\na,4,other\na,6,other\nb:1,2,positive\n")
    run(source, "--labels", gold, command="rates")
    assert "3 conversations, 1 left out for follow-ups without a label" in capsys.readouterr().out, "a last word is a follow-up, too"
    gold.write_text("conversation_hash,message_index,label\nq,4,other\n")
    with pytest.raises(SystemExit, match="none of the 1 given labels is about one of the 4 follow-ups"):
        run(source, "--labels", gold, command="rates")


def test_rates_of_the_classifier_s_labels(source: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(source, command="rates")
    told = capsys.readouterr().out
    assert told.startswith("labels: logistic+")
    assert "4 conversations, 0 left out" in told


def test_bad_input_is_a_message_before_any_work(source: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(location: str) -> offline.FollowUps:
        raise AssertionError("work has started")

    other, gold = tmp_path / "other.parquet", tmp_path / "gold.csv"
    pl.DataFrame({"text": ["x"]}).write_parquet(other)
    gold.write_text("conversation_hash,label\na,other\n")
    monkeypatch.setattr(offline, "read_follow_ups", work)
    for arguments, message in (
        ((source, tmp_path / "labels.json"), r"must end in \.csv or \.parquet"),
        ((source, tmp_path / "nowhere/labels.csv"), "there is no folder"),
        ((source, Path("/proc/labels.csv")), "/proc/labels.csv cannot be written: No such file or directory"),
        ((source, source), "is a file of the source"),
        ((tmp_path, source), "is a file of the source"),
        ((tmp_path / "missing.parquet", tmp_path / "labels.csv"), "no file that ends in .* matches"),
        ((other, tmp_path / "labels.csv"), "has objects with"),
        ((source, tmp_path / "labels.csv", "--labels", gold), "lacks the column.*message_index"),
        ((source, tmp_path / "labels.csv", "--labels", tmp_path / "missing.csv"), "cannot be read as CSV"),
    ):
        with pytest.raises(SystemExit, match=f"^rlhi: .*{message}"):
            run(*arguments)
    assert not (tmp_path / "labels.csv").exists()


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: pl.DataFrame, file: Path) -> None:
        file.write_text("half")
        raise OSError("disk full")

    out = tmp_path / "labels.csv"
    out.write_text("earlier")
    monkeypatch.setattr(pl.DataFrame, "write_csv", half)
    with pytest.raises(OSError, match="disk full"):
        offline.write(pl.DataFrame({name: ["a"] for name in offline.COLUMNS}), out)
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]
    assert out.read_text() == "earlier"


def test_help_loads_no_model_library() -> None:
    code = "import sys, rlhi_dagster.cli.main; print({'torch', 'sklearn', 'sentence_transformers', 'transformers'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.slow
def test_real_conversations_are_labelled_and_scored(tmp_path: Path) -> None:
    logs, gold = WILDCHAT / "wildchat_sample.parquet", WILDCHAT / "labels.csv"
    if not (logs.is_file() and gold.is_file()):
        pytest.skip(f"real data is not at hand: {WILDCHAT}")
    keys = {line.split(",")[0] for line in gold.read_text().splitlines()[1:]}
    part, out = tmp_path / "logs.parquet", tmp_path / "labels.csv"
    pl.read_parquet(logs).filter(pl.col("conversation_hash").is_in(sorted(keys)[:60])).write_parquet(part)
    command = [sys.executable, "-m", "rlhi_dagster.cli.main", "label", str(part), str(out), "--labels", str(gold)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 rows in = " in done.stderr
    written = pl.read_csv(out)
    matched = pl.read_csv(gold).join(written, on=["conversation_hash", "message_index"], suffix="_ours")
    assert len(matched) == len(written) > 60
    assert f"matched: {len(matched):,}; unmatched: {1201 - len(matched):,} given, 0 of ours" in done.stdout
    assert "CAUTION" in done.stdout  # the file is the one that the packaged classifier was trained on
    assert (matched["label"] == matched["label_ours"]).mean() > 0.6
