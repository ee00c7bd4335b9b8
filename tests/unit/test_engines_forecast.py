"""Forecasts from what has been measured, and limits on what model calls may cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhi_dagster.engines.forecast import Forecast, Limits, OverLimitError, check, forecast, guard, measured, note
from rlhi_dagster.engines.settings import OpenAISettings, Price, TransformersSettings
from rlhi_dagster.engines.stats import CallStats

LOCAL = TransformersSettings(device="cpu", dtype="float32", batch_size=8, chunk_size=8)
SERVER = OpenAISettings(
    base_url="http://127.0.0.1/v1", chunk_size=8, prices={"judge": Price(prompt_usd_per_million=2, completion_usd_per_million=10)}
)
STATS = CallStats(
    requests=12, cached=2, answered=10, prompt_characters=1000, prompt_tokens=250, completion_tokens=150, seconds=4.0, cost_usd=0.1
)


def test_without_a_measurement_the_most_is_assumed_and_time_is_unknown() -> None:
    found = forecast(10, [400, 400], 100, None, LOCAL, "m")
    assert (found.requests, found.missing, found.prompt_tokens, found.completion_tokens) == (10, 2, 200, 200)
    assert (found.seconds, found.cost_usd) == (None, None)
    assert str(found) == (
        "2 of 10 requests to answer, about 200 tokens in and 200 out (nothing measured yet: 4 characters a token, the longest replies)"
    )


def test_what_was_measured_is_used(tmp_path: Path) -> None:
    note(tmp_path, "chat", "m@1", "cpu", STATS)
    rates = measured(tmp_path, "chat", "m@1", "cpu")
    assert rates is not None
    assert (rates.tokens_per_character, rates.completion_tokens, rates.seconds_per_token) == (0.25, 15, 0.01)
    found = forecast(100, [200] * 20, 100, rates, LOCAL, "m")
    assert (found.prompt_tokens, found.completion_tokens, found.seconds) == (1000, 300, pytest.approx(13.0))
    assert found.basis == "10 answers of m@1"
    assert forecast(100, [200] * 20, 8, rates, LOCAL, "m").completion_tokens == 160, "no reply is longer than the limit"


def test_the_models_own_rates_come_first_then_those_of_its_engine(tmp_path: Path) -> None:
    assert measured(tmp_path, "chat", "m@1", "cpu") is None
    note(tmp_path, "chat", "other@1", "cpu", STATS)
    note(tmp_path, "chat", "m@1", "gpu", STATS)
    note(tmp_path, "reward", "m@1", "cpu", STATS)
    note(tmp_path, "chat", "m@1", "cpu", CallStats(requests=5, cached=5))
    assert measured(tmp_path, "chat", "m@1", "cpu").basis == "10 answers of other@1"  # type: ignore[union-attr]
    note(tmp_path, "chat", "m@1", "cpu", STATS)
    assert measured(tmp_path, "chat", "m@1", "cpu").basis == "10 answers of m@1"  # type: ignore[union-attr]


def test_work_that_wrote_nothing_says_nothing_about_replies(tmp_path: Path) -> None:
    note(tmp_path, "chat", "judge@1", "server", CallStats(answered=20, errors=20, prompt_characters=1000))
    found = forecast(2, [400, 400], 100, measured(tmp_path, "chat", "judge@1", "server"), SERVER, "judge")
    assert (found.prompt_tokens, found.completion_tokens, found.cost_usd) == (200, 200, pytest.approx((200 * 2 + 200 * 10) / 1e6))


def test_records_of_earlier_versions_and_estimated_ones_are_read(tmp_path: Path) -> None:
    note(tmp_path, "chat", "m@1", "cpu", STATS)
    [file] = (tmp_path / "runs" / "chat").glob("*.json")
    file.write_text(
        json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name not in {"estimated", "repeated"}})
    )
    note(tmp_path, "chat", "m@1", "cpu", replace(STATS, estimated=3))
    assert measured(tmp_path, "chat", "m@1", "cpu").basis == "20 answers of m@1, whose tokens are estimates"  # type: ignore[union-attr]


def test_an_encoder_that_counts_no_tokens_is_forecast_by_characters(tmp_path: Path) -> None:
    note(tmp_path, "embedding", "encoder", "encoder", CallStats(answered=10, prompt_characters=1000, seconds=5.0))
    found = forecast(4, [500, 500], 0, measured(tmp_path, "embedding", "encoder", "encoder"), None, "encoder")
    assert (found.seconds, found.completion_tokens, found.cost_usd) == (pytest.approx(5.0), 0, 0.0)


def test_cost_is_by_price_or_by_the_hour_or_unknown(tmp_path: Path) -> None:
    assert forecast(2, [4000] * 2, 100, None, SERVER, "judge").cost_usd == pytest.approx((2000 * 2 + 200 * 10) / 1e6)
    assert forecast(2, [4000] * 2, 100, None, SERVER, "another").cost_usd is None
    note(tmp_path, "chat", "m@1", "cpu", STATS)
    rates = measured(tmp_path, "chat", "m@1", "cpu")
    by_hour = LOCAL.model_copy(update={"usd_per_hour": 36.0})
    assert forecast(10, [200] * 10, 100, rates, by_hour, "m").cost_usd == pytest.approx(6.5 / 100)
    assert forecast(10, [200] * 10, 100, None, by_hour, "m").cost_usd is None


def test_forecasts_add_up_and_the_unknown_stays_unknown() -> None:
    known, unknown = Forecast(5, 2, 10, 4, 1.0, 0.5, "known"), Forecast(3, 1, 10, 4, None, 0.5, "unknown")
    assert known + known == Forecast(10, 4, 20, 8, 2.0, 1.0, "known")
    assert known + unknown == Forecast(8, 3, 20, 8, None, 1.0, "known")
    assert (Forecast(5, 0, 0, 0, 0.0, 0.0, "nothing") + unknown).basis == "unknown"


PLANNED = Forecast(100, 60, 5000, 2000, 7200.0, 12.5, "measured")


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_requests": 59}, r"would take 60 requests, over limits\.max_requests 59"),
        ({"max_tokens": 6999}, r"would take 7,000 tokens, over limits\.max_tokens 6,999"),
        ({"max_hours": 1.5}, r"would take 2\.00 hours, over limits\.max_hours 1\.5"),
        ({"max_usd": 12}, r"would take \$12\.50, over limits\.max_usd 12"),
    ],
)
def test_a_limit_that_would_be_exceeded_is_named(limits: dict[str, float], says: str) -> None:
    with pytest.raises(OverLimitError, match=says):
        check(Limits(**limits), PLANNED)
    check(Limits(max_requests=60, max_tokens=7000, max_hours=2, max_usd=12.5), PLANNED)


def test_a_limit_of_money_needs_a_price() -> None:
    with pytest.raises(OverLimitError, match="give the engine `prices`"):
        check(Limits(max_usd=5), Forecast(1, 1, 1, 1, None, None, ""))
    check(Limits(max_usd=5), Forecast(1, 0, 0, 0, 0.0, None, ""))
    check(Limits(max_hours=1), Forecast(1, 1, 1, 1, None, None, ""))


def test_work_that_has_exceeded_a_limit_ends() -> None:
    guard(Limits(max_requests=10, max_tokens=400, max_hours=1), STATS)
    with pytest.raises(OverLimitError, match=r"have taken 400 tokens, over limits\.max_tokens 399"):
        guard(Limits(max_tokens=399), STATS)
