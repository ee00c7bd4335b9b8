"""What ``rlhi store explain`` says of an answer and of an asset's last run."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import RESPONSES
from rlhi_dagster.cli import store_command
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardRequest, Sampling, trace
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.provenance.answers import Reason, differing, explain, explain_last_run, locate
from rlhi_dagster.store import uses
from rlhi_dagster.store.compaction import compact
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.store.segments import ANSWERED_AT, SCHEMAS

MODEL, SAMPLING, ENGINE = ModelRef("town/model", "r1"), Sampling(0.6, 0.9, 8, 7), "echo"
CONVERSATION = [
    {"role": "system", "content": "SECRET persona"},
    {"role": "user", "content": "SECRET one"},
    {"role": "assistant", "content": "SECRET two"},
    {"role": "user", "content": "SECRET three"},
]
REQUEST = ChatRequest(CONVERSATION)


def said(place: int, text: str) -> ChatRequest:
    return ChatRequest([*CONVERSATION[:place], {**CONVERSATION[place], "content": text}, *CONVERSATION[place + 1 :]])


def ask(
    root: Path, request: ChatRequest, model: ModelRef = MODEL, sampling: Sampling = SAMPLING, error: str | None = None, ago: int = 0
) -> str:
    """Keep an answer, so many minutes ago; its key."""
    store = ResponseStore(root, "chat", model.identity)
    key = request.key(model, sampling, ENGINE)
    answer = ChatAnswer(None if error else "SECRET reply", error, None, 1, 1, is_retryable=error is not None)
    row = {"key": key, **asdict(answer), "settings": request.settings(sampling, ENGINE), **asdict(trace(request))}
    [segment] = store.append(pl.DataFrame([row], schema=store.schema))
    pl.read_parquet(segment).with_columns(pl.col(ANSWERED_AT) - timedelta(minutes=ago)).write_parquet(segment)
    return key


@pytest.mark.parametrize(
    ("request_", "model", "sampling", "reasons", "settings"),
    [
        (REQUEST, MODEL, replace(SAMPLING, temperature=0.7), (Reason.SETTINGS,), ("temperature 0.6 -> 0.7",)),
        (REQUEST, MODEL, replace(SAMPLING, seed=8, top_p=1.0), (Reason.SETTINGS,), ("seed 7 -> 8", "top_p 0.9 -> 1.0")),
        (replace(REQUEST, choices=("A", "B")), MODEL, SAMPLING, (Reason.SETTINGS,), ('choices none -> ["A", "B"]',)),
        (REQUEST, ModelRef("town/model", "r2"), SAMPLING, (Reason.REVISION,), ()),
        (REQUEST, ModelRef("city/model", "r1"), SAMPLING, (Reason.MODEL,), ()),
        (said(0, "other"), MODEL, SAMPLING, (Reason.PERSONA,), ()),
        (ChatRequest(CONVERSATION[1:]), MODEL, SAMPLING, (Reason.PERSONA,), ()),
        (said(1, "other"), MODEL, SAMPLING, (Reason.HISTORY,), ()),
        (replace(REQUEST, sample_index=1), MODEL, SAMPLING, (Reason.SAMPLE,), ()),
        (said(3, "other"), MODEL, SAMPLING, (Reason.NEW,), ()),
        (
            said(0, "other"),
            ModelRef("town/model", "r2"),
            replace(SAMPLING, seed=8),
            (Reason.REVISION, Reason.SETTINGS, Reason.PERSONA),
            ("seed 7 -> 8",),
        ),
    ],
)
def test_the_difference_from_an_earlier_answer_is_named(
    tmp_path: Path, request_: ChatRequest, model: ModelRef, sampling: Sampling, reasons: tuple[Reason, ...], settings: tuple[str, ...]
) -> None:
    old = ask(tmp_path, REQUEST, ago=5)
    key = ask(tmp_path, request_, model, sampling)
    [found] = locate(tmp_path, key[:8])
    assert found.row["key"] == key
    assert "text" not in found.row
    compared = explain(found)
    assert (compared.reasons, compared.settings) == (reasons, settings)
    if reasons == (Reason.NEW,):
        assert compared.earlier_key is None
    else:
        assert (compared.earlier_key, compared.earlier_model) == (old, "town-model@r1")


def test_the_earlier_answer_with_the_fewest_differences_counts(tmp_path: Path) -> None:
    ask(tmp_path, said(1, "other"), sampling=replace(SAMPLING, seed=9), ago=9)
    ask(tmp_path, replace(REQUEST, sample_index=3), ago=8)
    near = ask(tmp_path, REQUEST, sampling=replace(SAMPLING, seed=9), ago=7)
    ask(tmp_path, said(0, "other"), ModelRef("town/model", "r2"), ago=6)
    key = ask(tmp_path, REQUEST, ago=1)
    ask(tmp_path, REQUEST, sampling=replace(SAMPLING, seed=10))
    compared = explain(locate(tmp_path, key)[0])
    assert (compared.earlier_key, compared.reasons, compared.settings) == (near, (Reason.SETTINGS,), ("seed 9 -> 7",))


def test_an_error_of_the_moment_explains_the_answer_after_it(tmp_path: Path) -> None:
    ask(tmp_path, REQUEST, error="timeout: 3 s", ago=5)
    ask(tmp_path, REQUEST, sampling=replace(SAMPLING, seed=9), ago=4)
    key = ask(tmp_path, REQUEST)
    places = locate(tmp_path, key)
    assert [place.segment.split("-")[0] for place in places] == ["segment", "errors"]
    assert explain(places[0]).reasons == (Reason.RETRIED,)


def test_a_row_without_trace_is_called_unknown_and_the_same_request_by_another_key_is_told(tmp_path: Path) -> None:
    ask(tmp_path, REQUEST, ago=5)
    key = ask(tmp_path, REQUEST, ModelRef("town/model", "r2"))
    [segment] = (tmp_path / "chat" / "town-model@r2").glob("segment-*.parquet")
    pl.read_parquet(segment).drop("message_id", "history_id").write_parquet(segment)
    assert explain(locate(tmp_path, key)[0]).reasons == (Reason.UNTRACED,)
    store = ResponseStore(tmp_path, "chat", MODEL.identity)
    [segment] = store.folder.glob("segment-*.parquet")
    again = pl.read_parquet(segment).with_columns(key=pl.lit("0" * 32))
    store.append(again.drop(ANSWERED_AT))
    assert explain(locate(tmp_path, "0000")[0]).reasons == (Reason.KEY,)


def test_rewards_are_explained_too(tmp_path: Path) -> None:
    keys = []
    for model, ago in ((ModelRef("judge", "r1"), 5), (ModelRef("judge", "r2"), 0)):
        request = RewardRequest([*CONVERSATION, {"role": "assistant", "content": "SECRET"}])
        store = ResponseStore(tmp_path, "reward", model.identity)
        keys.append(request.key(model, ENGINE))
        row = {"key": keys[-1], "reward": 1.0, "settings": request.settings(ENGINE), **asdict(trace(request))}
        [segment] = store.append(pl.DataFrame([row], schema=store.schema))
        pl.read_parquet(segment).with_columns(pl.col(ANSWERED_AT) - timedelta(minutes=ago)).write_parquet(segment)
    assert explain(locate(tmp_path, keys[1])[0]).reasons == (Reason.REVISION,)


def test_settings_are_compared_by_name() -> None:
    assert differing('{"a": 1, "b": 2}', '{"a": 1, "c": "x"}') == ("b 2 -> none", "c none -> x")
    assert differing(None, '{"json_schema": "' + "x" * 99 + '"}') == ("json_schema none -> (99 characters)",)


def use(root: Path, run: str, *keys: str, model: ModelRef = MODEL) -> None:
    uses.record(root, "candidates", ["2024-01"], run, {("chat", model.identity): keys})


def test_of_an_asset_the_answers_that_its_last_run_made_are_counted_by_reason(tmp_path: Path) -> None:
    old = [ask(tmp_path, replace(REQUEST, sample_index=index), ago=60) for index in range(3)]
    use(tmp_path, "run1", *old)
    # As if that run had been an hour ago.
    [file] = (tmp_path / "references" / "candidates").glob("*.parquet")
    told = {
        name.decode(): value.decode()
        for name, value in uses.pq.read_metadata(file).metadata.items()
        if b"ARROW" not in name and b"seal" not in name
    }
    told["recorded_at"] = (datetime.fromisoformat(told["recorded_at"]) - timedelta(minutes=59)).isoformat()
    pl.read_parquet(file).write_parquet(file, metadata=told)
    warmer = replace(SAMPLING, temperature=1.0)
    new = [
        *(ask(tmp_path, replace(REQUEST, sample_index=index), sampling=warmer) for index in range(3)),
        ask(tmp_path, said(0, "other")),
        ask(tmp_path, said(3, "other")),
        ask(tmp_path, replace(said(3, "other"), sample_index=1)),
    ]
    use(tmp_path, "run2", old[0], *new)
    compact(tmp_path / "chat" / "town-model@r1", "chat")
    records, used, found = explain_last_run(tmp_path, "candidates")
    assert (records[0].run_id, used) == ("run2", 7)
    assert Counter((each.reasons, each.settings) for each in found) == {
        ((Reason.SETTINGS,), ("temperature 0.6 -> 1.0",)): 3,
        ((Reason.PERSONA,), ()): 1,
        ((Reason.NEW,), ()): 2,
    }
    assert {each.key for each in found} == set(new)


def test_the_words_name_places_users_and_differences_and_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))
    root = tmp_path / "responses"
    old = ask(root, REQUEST, ago=5)
    use(root, "run1", old)
    key = ask(root, REQUEST, sampling=replace(SAMPLING, seed=8))
    use(root, "run2", key)

    def told(what: str) -> str:
        return store_command.run(argparse.Namespace(action="explain", what=what), print)

    of_key, of_asset = told(key[:10]), told("candidates")
    for part in (key, "town-model@r1", "candidates (run run2)", "other settings", "seed 7 -> 8", old):
        assert part in of_key
    assert "used by: no asset" in told(old)
    assert "named by" not in of_key, "there are no tables"
    names = [f"dpo_rewards/item-{number}" for number in range(7)]
    answers = pl.DataFrame([dict.fromkeys(RESPONSES.columns) | {"response_id": name, "recipe": "base", "call_id": key} for name in names])
    Lake(root=str(tmp_path / "lake")).write("responses", answers.cast(RESPONSES.schema), ["base"])
    assert f"  named by: responses {', '.join(names[:5])} and 2 more" in told(key).splitlines()
    assert "named by" not in told(old)
    assert "used 1 answers, 1 of them new" in of_asset
    assert f"1  other settings, seed 7 -> 8  (as {key})" in of_asset
    assert "SECRET" not in of_key + of_asset
    with pytest.raises(ValueError, match=r"no answer in .* begins with 00000000"):
        told("00000000")
    with pytest.raises(ValueError, match="neither an asset"):
        told("abc")
    ResponseStore(root, "chat", MODEL.identity).append(
        pl.DataFrame({"key": ["abcd" + "0" * 28, "abcd" + "1" * 28]}).select(
            pl.col(name) if name == "key" else pl.lit(None).alias(name) for name in SCHEMAS["chat"]
        )
    )
    with pytest.raises(ValueError, match="2 keys begin with abcd"):
        told("abcd")
