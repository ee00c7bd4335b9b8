"""Whether samples of the same messages differ."""

from __future__ import annotations

from collections.abc import Callable

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling
from rlhi_dagster.engines.repeats import Repeats

WARM = Sampling(0.6, 0.9, 8, 7)


def counted(reply: Callable[[int, int], str | None], sampling: Sampling = WARM, samples: int = 4, **more) -> tuple[int, int, list[str]]:
    requests = {
        f"{prompt} {sample}": ChatRequest([{"role": "user", "content": str(prompt)}], sample, **more)
        for prompt in range(10)
        for sample in range(samples)
    }
    log: list[str] = []
    repeats = Repeats(requests, sampling, log.append)
    answers = [[(key, ChatAnswer(reply(*map(int, key.split())), None, "stop", 1, 1))] for key in requests]
    assert list(repeats.watched(iter(answers))) == answers
    return repeats.further, repeats.repeated, log


def test_samples_that_are_all_equal_are_told_of_once_and_counted() -> None:
    further, repeated, log = counted(lambda prompt, sample: f"reply {prompt}")
    assert (further, repeated) == (30, 30)
    [told] = log
    assert told.startswith("20 of 20 further samples of the same messages equal an earlier one")
    assert counted(lambda prompt, sample: f"reply {prompt}", samples=2)[2][0].startswith("10 of 10 further samples")


def test_some_that_are_equal_are_counted_alone() -> None:
    assert counted(lambda prompt, sample: f"reply {sample // 2}") == (30, 20, [])


def test_what_need_not_differ_is_left_out() -> None:
    assert counted(lambda prompt, sample: "A", samples=1) == (0, 0, [])
    assert counted(lambda prompt, sample: "A", Sampling(0.0, 1.0, 8, 7)) == (0, 0, [])
    assert counted(lambda prompt, sample: "A", choices=("A", "B")) == (0, 0, [])
    assert counted(lambda prompt, sample: "{}", json_schema="{}") == (0, 0, [])
    assert counted(lambda prompt, sample: None) == (0, 0, [])
