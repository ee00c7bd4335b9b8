"""How many requests are under way, and when the next one may go."""

from __future__ import annotations

import asyncio

import pytest

from rlhi_dagster.engines.openai import pacing
from rlhi_dagster.engines.openai.pacing import AdaptiveLimit, RateLimits, Slots, TokenBucket


def test_the_limit_is_halved_once_per_round_trip_and_comes_back() -> None:
    limit = AdaptiveLimit(64)
    sent = limit.cuts
    for _ in range(30):  # a burst, all sent before the first one failed
        limit.failed(sent, is_busy=True)
    assert limit.allowed == 32
    limit.failed(limit.cuts, is_busy=True)
    assert (limit.allowed, limit.lowest, list(limit.trace)) == (16, 16, [64, 32, 16])
    for _ in range(16):  # a round trip
        limit.succeeded()
    assert limit.allowed == 19
    for _ in range(1000):
        limit.succeeded()
    assert (limit.allowed, limit.lowest) == (64, 16)


def test_the_limit_never_falls_below_one() -> None:
    limit = AdaptiveLimit(8)
    for _ in range(10):
        limit.failed(limit.cuts, is_busy=True)
    assert limit.allowed == 1
    limit.succeeded()
    assert limit.allowed == 2


def test_a_failure_now_and_then_is_no_sign_of_a_busy_server_and_many_are() -> None:
    limit = AdaptiveLimit(32)
    for _ in range(50):
        limit.failed(limit.cuts, is_busy=False)
        for _ in range(24):
            limit.succeeded()
    assert limit.lowest == 32
    for _ in range(8):
        limit.failed(limit.cuts, is_busy=False)
    assert limit.allowed < 32


def test_places_are_as_many_as_allowed_and_those_who_wait_are_served_in_turn() -> None:
    async def run() -> None:
        limit = AdaptiveLimit(2)
        slots = Slots(limit)
        order: list[int] = []

        async def work(number: int) -> None:
            await slots.take()
            order.append(number)
            assert slots.used <= limit.allowed
            await asyncio.sleep(0)
            slots.give_back()

        await asyncio.gather(*(work(number) for number in range(20)))
        assert (order, slots.used) == (list(range(20)), 0)

    asyncio.run(run())


def test_a_place_over_a_fallen_limit_is_given_up_until_there_is_room() -> None:
    async def run() -> None:
        limit = AdaptiveLimit(2)
        slots = Slots(limit)
        await slots.take()
        await slots.take()
        await slots.keep()
        assert slots.used == 2
        limit.failed(limit.cuts, is_busy=True)
        waiting = asyncio.create_task(slots.keep())
        await asyncio.sleep(0)
        assert (waiting.done(), slots.used) == (False, 1)
        limit.succeeded()
        slots.serve()
        await waiting
        assert slots.used == 2

    asyncio.run(run())


def test_a_place_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    async def run() -> None:
        slots = Slots(AdaptiveLimit(1))
        await slots.take()
        gone, next_one = asyncio.create_task(slots.take()), asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        slots.give_back()
        await asyncio.wait_for(next_one, 5)
        assert slots.used == 1

    asyncio.run(run())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_go_at_the_rate_of_the_limit() -> None:
    clock = Clock()
    bucket = TokenBucket(120, clock)
    sent = []
    for _ in range(100):
        clock.now += bucket.take(1)
        sent.append(clock.now)
    assert sent[:4] == [0, 0, 0, 0.5]  # a second's worth at once, and the one that overdraws
    for start in sent:
        assert sum(start <= other < start + 60 for other in sent) <= 120 + 3


def test_a_large_request_is_paid_for_by_those_after_it_and_corrected_by_what_it_used() -> None:
    clock = Clock()
    bucket = TokenBucket(6000, clock)
    assert bucket.take(1000) == 0
    assert bucket.take(10) == pytest.approx(9)
    bucket.correct(1000 - 400)
    assert bucket.take(10) == pytest.approx(3.1)
    clock.now = 1000
    assert bucket.take(10) == 0
    assert bucket.level == 90  # of unused time no more than a second's worth is kept


@pytest.mark.parametrize(
    ("requests_per_minute", "tokens_per_minute", "seconds"),
    [(None, None, 0), (60, None, 60), (None, 60_000, 0), (None, 600, 301), (60, 600, 301)],
)
def test_both_limits_hold(
    requests_per_minute: float | None, tokens_per_minute: float | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    async def sleep(waited: float) -> None:
        clock.now += waited

    monkeypatch.setattr(pacing, "_sleep", sleep)

    async def run() -> None:
        limits = RateLimits(requests_per_minute, tokens_per_minute, clock)
        for _ in range(62):
            await limits.take(100)
            limits.correct(100, 50)

    asyncio.run(run())
    assert clock.now == pytest.approx(seconds, abs=5)
