"""What is tried again by itself and what is not, and pools: one run at a time has the accelerator, one the servers that may charge."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.dagster_run import RunOpConcurrency

from assets import reasoning
from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.failures import may_pass
from rlhi_dagster.cli import dagster_home
from rlhi_dagster.engines.ask import LostServerError, TooManyErrorsError, _judge
from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.openai.engine import OpenAIChatEngine
from rlhi_dagster.engines.openai.server import ServerRefusedError
from rlhi_dagster.engines.settings import OpenAISettings
from rlhi_dagster.engines.unavailable import UnavailableModelError, loading
from rlhi_dagster.graph import declare, pipes, recovery
from rlhi_dagster.profiles import Profile
from tests import snapshot
from tests.built import built, playing

COMMIT = "1" * 40
BEFORE_THE_KILL = 7


class KilledOnce(snapshot.Engine):
    """Plays every model, and is killed once after some answers; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(["Look at the first step again."])
        self.asked: list[str] = []

    def answer(self, calls: Any, sampling: Any) -> Iterator[Any]:
        for (answered,) in super().answer(calls, sampling):
            self.asked.append(answered[0])
            yield [answered]
            if len(self.asked) == BEFORE_THE_KILL:
                raise pipes.failure("generate", -signal.SIGKILL, None)


def test_after_a_worker_was_killed_the_step_is_tried_again_and_asks_only_for_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = KilledOnce()
    monkeypatch.setattr(pipes, "run", snapshot.Workers(engine).run)
    monkeypatch.setattr(recovery, "SECONDS", 0.0)
    profile = playing(profiles.load("sample", environment={"RLHI_DATA": str(tmp_path)}), simulated_user={"hub": f"users/one@{COMMIT}"})
    made = built(profile, reasoning.prm800k, reasoning.reasoning_errors)
    done = dg.materialize(made, selection=["reasoning_errors"], resources=definitions.resources(profile))
    assert done.success
    (event,) = done.asset_materializations_for_node("reasoning_errors")
    rows = event.metadata["dagster/row_count"].value
    assert [each.event_type_value for each in done.all_events].count("STEP_RESTARTED") == 1
    assert len(engine.asked) == len(set(engine.asked)) == rows > BEFORE_THE_KILL
    assert event.metadata["calls/answered"].value == rows - BEFORE_THE_KILL
    assert not list((profile.root / "work").rglob("*.parquet")), "chat text for a worker is left behind"


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        ({"connection": 15, "http_503": 10, "content_filter": 5}, LostServerError),
        ({"timeout": 30}, LostServerError),
        ({"rate_limited": 30}, LostServerError),
        ({"content_filter": 25, "connection": 5}, TooManyErrorsError),
        ({"http_400": 30}, TooManyErrorsError),
    ],
)
def test_many_errors_may_pass_only_where_most_are_the_servers(reasons: dict[str, int], kind: type[Exception]) -> None:
    with pytest.raises(TooManyErrorsError) as raised:
        _judge(Counter(reasons), 40, 0.2)
    assert type(raised.value) is kind
    assert may_pass(raised.value) == (kind is LostServerError)


@pytest.mark.parametrize(
    ("url", "passes"), [("http://127.0.0.1:9/v1", True), ("ftp://127.0.0.1/v1", False), ("http://nowhere.invalid/v1", False)]
)
def test_a_server_that_is_not_there_may_come_and_an_address_that_cannot_be_one_stays_wrong(url: str, passes: bool) -> None:
    engine = OpenAIChatEngine(ModelRef("writers/one", COMMIT), OpenAISettings(base_url=url, chunk_size=1))
    with pytest.raises(ServerRefusedError, match=f"no server at {url}") as raised:
        list(engine.answer(iter([("key", ChatRequest([]))]), Sampling(0.0, 1.0, 8, 0)))
    assert may_pass(raised.value) == passes


@pytest.mark.parametrize(("cause", "passes"), [(ConnectionResetError("reset"), True), (ValueError("no such file"), False)])
@pytest.mark.parametrize(("folder", "is_local"), [(None, False), ("models/one", True)])
def test_a_hub_that_was_lost_may_be_back_and_a_folder_will_not(cause: Exception, passes: bool, folder: str, is_local: bool) -> None:
    with pytest.raises(UnavailableModelError) as raised, loading(ModelRef("writers/one", COMMIT, folder)):
        raise OSError("cannot be had") from cause
    assert may_pass(raised.value) == (passes and not is_local)


def behind_servers(*roles: str) -> Profile:
    """The sample with models behind a server in some roles."""
    server = {"kind": "openai", "base_url": "https://example.org/v1", "chunk_size": 8}
    return playing(profiles.load("sample"), **{role: {"hub": f"{role}/one@{COMMIT}", "engine": server} for role in roles})


def pools(profile: Profile) -> dict[str, str | None]:
    steps = [each for each in definitions.declarations() if isinstance(each, declare.Step) and each.pool]
    return {step.name: step._pool(declare.Place(profile)) for step in steps}


def test_steps_that_only_ask_servers_leave_the_accelerator_to_others() -> None:
    assert set(pools(profiles.load("sample")).values()) == {"model"}
    found = pools(behind_servers("judge", "rewriter", "labeller"))
    # The pair judge of rewrites is a program; labels rest on sentence vectors too, which are made here.
    assert {name for name, pool in found.items() if pool == "server"} == {
        "judgements",
        "judge_calibration",
        "benchmark_ratings",
        "rewrites",
    }
    assert {found["feedback_labels"], found["candidates"], found["checkpoints"]} == {"model"}


@pytest.mark.parametrize(("queued", "is_blocked"), [({"server"}, True), ({"server", "model"}, True), ({"model"}, False)])
def test_the_limits_that_ship_let_one_run_ask_servers(
    queued: set[str], is_blocked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))
    with dg.DagsterInstance.from_config(str(dagster_home.home())) as instance:

        def run(pools: set[str], status: dg.DagsterRunStatus) -> dg.DagsterRun:
            needs = RunOpConcurrency(root_key_counts={}, has_unconstrained_root_nodes=True, all_pools=pools)
            return instance.add_run(dg.DagsterRun(job_name="training", status=status, run_op_concurrency=needs))

        going_on, waiting = run({"server"}, dg.DagsterRunStatus.STARTED), run(queued, dg.DagsterRunStatus.NOT_STARTED)
        storage, granularity = instance.event_log_storage, instance.get_concurrency_config().pool_config.pool_granularity
        records = instance.get_run_records(dg.RunsFilter(run_ids=[going_on.run_id]))
        for _ in range(2):  # the first look of a daemon gives a pool that is new to it the limit
            keys, limits = storage.get_concurrency_keys(), storage.get_pool_limits()
            counter = GlobalOpConcurrencyLimitsCounter(instance, [waiting], records, keys, limits, pool_granularity=granularity)
        assert counter.is_blocked(waiting) == is_blocked
