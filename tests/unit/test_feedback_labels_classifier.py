"""The head: determinism, its file format, its cues, and its scores on real follow-ups."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlhi_dagster.base.failures import NotMadeError, message
from rlhi_dagster.base.launching import command
from rlhi_dagster.base.tables import FEEDBACK_LABELS, TURNS
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.feedback import Feedback
from rlhi_dagster.feedback.labels import metrics
from rlhi_dagster.feedback.labels.agreement import read_gold
from rlhi_dagster.feedback.labels.anchors import anchors
from rlhi_dagster.feedback.labels.classifier import WEIGHTS, FeedbackClassifier
from rlhi_dagster.feedback.labels.cues import CUES, features
from rlhi_dagster.feedback.labels.fitting import labelled, labelled_wildchat, train
from rlhi_dagster.feedback.labels.follow_ups import ClassifierLabeller, follow_ups
from rlhi_dagster.feedback.labels.metrics import LABELS

WILDCHAT = Path(__file__).parents[2] / "../shared/data/wildchat"


def hashed(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors that depend on the text alone: an encoder without meaning."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
    vectors = np.array([np.random.default_rng(seed).normal(size=384) for seed in seeds]).reshape(-1, 384)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exchanges() -> pl.DataFrame:
    texts = {
        Feedback.REATTEMPT_WITH_FEEDBACK: ["make it shorter", "use bullets please", "more formal please"],
        Feedback.POSITIVE: ["thanks!", "great, thank you"],
        Feedback.CONTINUATION: ["go on", "continue"],
        Feedback.OTHER: ["lol", "hm"],
    }
    rows = [
        (f"c{i}", options[i % len(options)], f"How do I grow plant {i}?", f"Water {i}.", y)
        for i in range(12)
        for y, options in texts.items()
    ]
    frame = pl.DataFrame(rows, schema=["conversation_id", "follow_up", "previous_prompt", "previous_reply", "label"], orient="row")
    return frame.with_columns(second_label=pl.lit(None, pl.String))


@pytest.fixture(scope="module")
def head() -> FeedbackClassifier:
    return train(exchanges(), hashed, seed=1)


def test_training_is_deterministic_and_the_card_reports_intervals(head: FeedbackClassifier) -> None:
    again = train(exchanges(), hashed, seed=1)
    assert again.digest == head.digest
    assert again.card == head.card
    f1 = head.card["cross_validation"]["reattempt_f1"]
    assert f1["ci_low"] <= f1["value"] <= f1["ci_high"]
    assert f1["value"] > head.card["cross_validation"]["majority_baseline"]["reattempt_f1"] - 1e-9
    assert f1["value"] > 0.9


def test_a_head_survives_saving(head: FeedbackClassifier, tmp_path: Path) -> None:
    head.save(tmp_path)
    loaded = FeedbackClassifier.load(tmp_path)
    frame = exchanges()
    assert loaded.digest == head.digest
    assert loaded.card == json.loads(json.dumps(head.card))
    np.testing.assert_array_equal(loaded.predict_proba(frame, hashed), head.predict_proba(frame, hashed))


def test_a_head_whose_files_do_not_belong_together_is_refused(head: FeedbackClassifier, tmp_path: Path) -> None:
    head.save(tmp_path)
    card = (tmp_path / "card.json").read_text()
    replace(head, bias=head.bias + 1).save(tmp_path)
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(ValueError, match="digest"):
        FeedbackClassifier.load(tmp_path)


def test_a_head_that_is_not_there_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match=r"head.npz, card.json missing\)$") as raised:
        FeedbackClassifier.load(tmp_path)
    assert message(raised.value).endswith("missing); run: " + command("feedback_classifier"))


def test_a_head_for_other_cues_is_refused(head: FeedbackClassifier, tmp_path: Path) -> None:
    head.save(tmp_path)
    path = tmp_path / "card.json"
    path.write_text(path.read_text().replace('"exact_repeat"', '"another_cue"'))
    with pytest.raises(ValueError, match="train it again"):
        FeedbackClassifier.load(tmp_path)


def test_probabilities_are_distributions_and_an_empty_frame_is_legal(head: FeedbackClassifier) -> None:
    frame = exchanges()
    probabilities = head.predict_proba(frame, hashed)
    assert probabilities.shape == (len(frame), 6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert head.predict_proba(frame.clear(), hashed).shape == (0, 6)


def test_bad_input_is_named(head: FeedbackClassifier) -> None:
    frame = exchanges()
    with pytest.raises(ValueError, match="previous_reply"):
        head.predict_proba(frame.drop("previous_reply"), hashed)
    with pytest.raises(ValueError, match="follow_up"):
        head.predict_proba(frame.with_columns(follow_up=pl.lit(None, pl.String)), hashed)
    with pytest.raises(ValueError, match="wrong encoder"):
        head.predict_proba(frame, lambda texts: hashed(texts)[:, :10])
    with pytest.raises(ValueError, match="'nonsense'"):
        train(frame.with_columns(label=pl.lit("nonsense")), hashed, seed=1)
    with pytest.raises(ValueError, match="conversations"):
        train(frame.with_columns(conversation_id=pl.lit("one")), hashed, seed=1)


def test_cues_are_bounded_named_numbers() -> None:
    assert len(set(CUES)) == len(CUES)
    for texts in (("", "", ""), ("a" * 50_000, "?", "!"), ("1" * 5_000 + "x", "ha" * 3_000, "```" * 900), ("请 ¿\0", "\n", "😀")):
        values = features(*texts)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert np.abs(values).max() <= 2.0


@pytest.mark.parametrize(
    ("cue", "follow_up", "is_set"),
    [
        ("exact_repeat", "How do I cook rice?", True),
        ("exact_repeat", "How do I cook beans?", False),
        ("edited_repeat", "How do I cook beans?", True),
        ("only_thanks", "thanks, that works!", True),
        ("only_thanks", "thanks, and now bread", False),
        ("only_again", "Try again please", True),
        ("only_go_on", "go on", True),
        ("starts_edit", "Could you make it nicer", True),
        ("correction", "No, I meant brown rice.", True),
        ("short_style_request", "In Spanish, please.", True),
        ("is_wordless", "...", True),
    ],
)
def test_a_cue_fires_where_it_should(cue: str, follow_up: str, is_set: bool) -> None:
    values = features(follow_up, "How do I cook rice?", "Boil it for 15 minutes.")
    assert bool(values[CUES.index(cue)]) is is_set


def test_labels_follow_the_table_and_spans_belong_to_feedback_only() -> None:
    head = FeedbackClassifier.load(WEIGHTS)
    prompts = ["How do I cook rice?", "Make it shorter, please.", "thanks!", "How do I cook rice?"]
    turns = pl.DataFrame(
        {
            "turn_id": [f"c:{2 * i}" for i in range(4)],
            "turn": [1, 2, 3, 4],
            "prompt": prompts,
            "reply": ["Boil it for 15 minutes in two cups of water.", "Boil it.", "You are welcome!", None],
            "reply_id": ["c:1", "c:3", "c:5", None],
            "asked_at": [None] * 4,
            "template_id": [None] * 4,
            **{name: ["x"] * 4 for name in ("conversation_id", "user_id", "month")},
        },
        schema_overrides={"asked_at": TURNS.schema["asked_at"], "template_id": pl.String, "turn": pl.Int32},
    )
    paired = follow_ups(turns.lazy())
    assert paired["previous_prompt"].to_list() == prompts[:3]
    assert paired["previous_turn_id"].to_list() == ["c:0", "c:2", "c:4"]
    assert paired["is_unanswered"].to_list() == [False, False, True]
    labeller = ClassifierLabeller(head, hashed)
    given = labeller.label(paired)
    assert given.schema == FEEDBACK_LABELS.schema
    assert given["label"].to_list()[0] == Feedback.REATTEMPT_WITH_FEEDBACK
    assert given["span"].to_list()[0] == "shorter"
    assert given["span"].to_list()[1:] == [None, None]
    assert given.select("turn_id", "is_unanswered").rows() == [("c:2", False), ("c:4", False), ("c:6", True)]
    assert given["labeller"].unique().to_list() == [head.name] == [labeller.name]
    assert labeller.label(paired.clear()).schema == FEEDBACK_LABELS.schema
    with pytest.raises(ValueError, match="c:4"):
        follow_ups(turns.filter(pl.col("turn") != 2).lazy())


def test_the_shipped_head_is_small_and_honest() -> None:
    head = FeedbackClassifier.load(WEIGHTS)
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 200_000
    assert head.encoder == MiniLM.name
    assert head.labels == LABELS
    for part in (head.card["cross_validation"], head.card["test"]["conversations_apart"]):
        baseline = part["majority_baseline"]
        assert part["macro_f1"]["ci_low"] > baseline["macro_f1"]
        assert part["reattempt_f1"]["ci_low"] > baseline["reattempt_f1"]


def test_anchors_cover_every_label() -> None:
    assert set(anchors()["label"]) == set(Feedback)


def test_the_card_compares_with_baselines_on_the_same_folds() -> None:
    """The shipped head: recorded figures, so that a change of the card that nobody measured is noticed."""
    card = FeedbackClassifier.load(WEIGHTS).card["cross_validation"]
    for name in ("bag_of_words", "embeddings"):
        beside = card["baselines"][name]
        assert beside["n"] == card["n"]
        for metric in ("macro_f1", "reattempt_f1", "reattempt_average_precision"):
            assert beside["head_minus_this"][metric]["ci_low"] > 0
    assert card["calibration"]["error"] < card["calibration_before_tempering"]["error"]
    assert sum(point["n"] for point in card["calibration"]["reliability"]) == card["n"]


def test_labels_are_joined_to_ingested_follow_ups_and_the_rest_is_left_out() -> None:
    columns = {"turn_id": ["a:2", "a:4", "b:2"], "conversation_id": ["a", "a", "b"], "follow_up": ["x", "y", "z"]}
    pairs = pl.DataFrame(columns)
    gold = pl.DataFrame(
        {"conversation_hash": ["b", "a", "q"], "message_index": [2, 4, 2], "label": ["other"] * 3, "second_label": [None] * 3}
    )
    assert labelled(pairs, gold)["turn_id"].to_list() == ["a:4", "b:2"]
    with pytest.raises(ValueError, match="none of the 1 labels is about one of the 3 follow-ups"):
        labelled(pairs, gold.tail(1))


def wildchat() -> pl.DataFrame:
    if not (WILDCHAT / "labels.csv").is_file():
        pytest.skip(f"labelled WildChat follow-ups are not at {WILDCHAT}")
    conversations = pl.read_parquet(WILDCHAT / "wildchat_sample.parquet", columns=["conversation_hash", "conversation"])
    return labelled_wildchat(read_gold(WILDCHAT / "labels.csv"), conversations)


def test_real_labels_join_to_what_they_are_about() -> None:
    frame = wildchat()
    assert len(frame) == 1201
    assert frame.select("follow_up", "previous_prompt", "previous_reply").null_count().sum_horizontal().item() == 0
    conversations = pl.read_parquet(WILDCHAT / "wildchat_sample.parquet", columns=["conversation_hash", "conversation"])
    row = frame.row(0, named=True)
    messages = conversations.filter(pl.col("conversation_hash") == row["conversation_id"])["conversation"][0]
    assert messages[row["message_index"]]["content"] == row["follow_up"]
    assert messages[row["message_index"] - 1]["content"] == row["previous_reply"]
    bad = pl.DataFrame({"conversation_hash": [row["conversation_id"]], "message_index": [0]})
    with pytest.raises(ValueError, match="message 0"):
        labelled_wildchat(bad, conversations)


def test_cues_alone_beat_the_majority_on_real_follow_ups_and_test_rows_stay_out_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 10)  # the intervals play no part here
    frame = wildchat()
    head = train(frame, hashed, seed=0)
    assert head.card["training"]["n"] == frame["second_label"].null_count()
    assert head.card["test"]["conversations_apart"]["n"] == len(frame) - frame["second_label"].null_count()
    changed = frame.with_columns(label=pl.when(pl.col("second_label").is_not_null()).then(pl.lit("other")).otherwise("label"))
    assert train(changed, hashed, seed=0).digest == head.digest
    assert head.card["test"]["conversations_apart"]["reattempt_f1"]["value"] > 0.4
