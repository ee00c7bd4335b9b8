"""Engines on a local Ray cluster of several processes: the answers of one engine, also when a node or a replica dies.

The nodes are processes of this machine, without a GPU. Where the model matters it is a tiny random Llama, else an engine of a few lines.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")
import dagster as dg
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster
from transformers import LlamaForSequenceClassification

from rlhi_dagster.engines.ask import StoppedError
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardRequest, Sampling
from rlhi_dagster.engines.loading import chat_engine, reward_engine
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.engines.ray import engines
from rlhi_dagster.engines.ray.engines import ClusterError, RayEngine
from rlhi_dagster.engines.requests import chat_rows
from rlhi_dagster.engines.settings import RayCluster, TransformersSettings, VllmSettings
from rlhi_dagster.workers.answering import Desk
from rlhi_dagster.workers.generate import Generation

ROOT = Path(__file__).parents[2]
TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
SAMPLING = Sampling(0.6, 0.9, 12, 7)
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
Save = Callable[..., None]


@pytest.fixture(scope="module")
def processes() -> Iterator[Cluster]:
    """A head without cores; its temporary folder and ports are Ray's choice, so that other tests may run beside this one."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def cluster(processes: Cluster) -> Cluster:
    """With two nodes of a core each."""
    while len(processes.worker_nodes) < 2:
        processes.add_node(**NODE)
    return processes


def saved(save: Save, folder: Path, kind: Any = None) -> ModelRef:
    save(folder, TEXTS, kind, max_position_embeddings=160, initializer_range=0.4, num_labels=1)
    return ModelRef("tiny", weights_digest(folder), str(folder))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Save) -> ModelRef:
    return saved(save_tiny_llama, tmp_path_factory.mktemp("chat"))


def settings(cluster: Cluster | None, chunk_size: int = 32, batch_size: int = 4, **given: Any) -> TransformersSettings:
    there = {"address": cluster.address, "replicas": 2, "gpus_per_replica": 0} | given if cluster else None
    return TransformersSettings(device="cpu", dtype="float32", batch_size=batch_size, chunk_size=chunk_size, cluster=there)


def requests(count: int, repeats: int = 4) -> list[ChatRequest]:
    """With ``repeats`` samples of each message, and one prompt that is too long."""
    said = [f"{TEXTS[number % 3]} {number // repeats}" for number in range(count - 1)]
    asked = [ChatRequest([{"role": "user", "content": text}], number % repeats) for number, text in enumerate(said)]
    return [*asked, ChatRequest([{"role": "user", "content": "tulips " * 200}])]


def generation(root: Path, model: ModelRef, chosen: TransformersSettings, stop: Callable[[], bool] = lambda: False) -> Generation:
    job = {"store": str(root), "engine": chosen.model_dump(), "limits": {}}
    return Generation(Desk(job, print, stop), model, SAMPLING)


def keyed(model: ModelRef, asked: list[ChatRequest], chosen: TransformersSettings) -> dict[str, ChatRequest]:
    return {request.key(model, SAMPLING, chosen.identity): request for request in asked}


def table(of: Generation, keys: dict[str, ChatRequest]) -> list[dict[str, Any]]:
    return of.store.lookup(pl.Series("key", list(keys))).sort("key").to_dicts()


@pytest.fixture
def launch(tmp_path: Path, model: ModelRef) -> Iterator[Callable[..., Future[Any]]]:
    """Starts ``workers.generate`` on requests, as an asset does."""
    with ThreadPoolExecutor() as pool:

        def run(asked: dict[str, ChatRequest], chosen: TransformersSettings) -> Future[Any]:
            chat_rows(asked).write_parquet(tmp_path / "requests.parquet")
            batch = {"model": model.to_dict(), "requests": str(tmp_path / "requests.parquet")}
            job = {"store": str(tmp_path / "store"), "engine": chosen.model_dump(), "limits": {}, "sampling": asdict(SAMPLING)}
            return pool.submit(worker, job | {"batches": [batch]})

        yield run


def worker(job: dict[str, Any]) -> dg.ExecuteInProcessResult:
    @dg.asset
    def answers(context):  # Dagster cannot read annotations of an inner function
        client = dg.PipesSubprocessClient(cwd=str(ROOT))
        command = [sys.executable, "-m", "rlhi_dagster.workers.generate"]
        return client.run(context=context, command=command, extras=job).get_materialize_result()

    return dg.materialize([answers], raise_on_error=True)


class Echo:
    """Says the message in capitals, a few calls at a time, and notes in a file of its process which calls it took."""

    def __init__(self, model: ModelRef, settings: TransformersSettings) -> None:
        self.folder, self.chunk_size = Path(str(model.path)), settings.chunk_size
        if "broken" in model.name:
            os._exit(1)

    def answer(self, calls: Iterator[tuple[str, ChatRequest]], sampling: Sampling) -> Iterator[list[tuple[str, ChatAnswer]]]:
        while taken := list(islice(self.noted(calls), self.chunk_size)):
            for key, request in taken:
                time.sleep(0.005)
                yield [(key, ChatAnswer(request.messages[-1]["content"].upper(), None, "stop", 1, 1))]

    def noted(self, calls: Iterator[tuple[str, ChatRequest]]) -> Iterator[tuple[str, ChatRequest]]:
        for key, request in calls:
            with (self.folder / f"{os.getpid()}.taken").open("a") as file:
                print(key, file=file)
            if "poison" in request.messages[-1]["content"]:
                os._exit(1)
            if "nonsense" in request.messages[-1]["content"]:
                raise ValueError("it makes\nno sense")
            yield key, request


def taken(folder: Path) -> list[list[str]]:
    """What each process has taken."""
    return [file.read_text().split() for file in sorted(folder.glob("*.taken"))]


@pytest.mark.slow
def test_a_node_that_dies_under_the_program_changes_no_table(
    cluster: Cluster, model: ModelRef, tmp_path: Path, launch: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    # One by one: a draw at the edge of a token's share would tell by rounding with which others a request was read, here by chance.
    chosen = settings(cluster, batch_size=1)
    wanted = keyed(model, requests(160), chosen)
    program = launch(wanted, chosen)
    spread = generation(tmp_path / "store", model, chosen)
    while not table(spread, wanted):
        assert not program.done(), program.result()
        time.sleep(0.05)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert len(table(spread, wanted)) < 160
    assert program.result().success
    assert "a replica died with" in capfd.readouterr().err
    alone = generation(tmp_path / "alone", model, settings(None, batch_size=1))
    alone.answer(wanted, "alone")
    assert table(spread, wanted) == table(alone, wanted)


@pytest.fixture
def echo(tmp_path: Path) -> ModelRef:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes do not know this file
    (tmp_path / "model").mkdir()
    return ModelRef("echo", "r1", str(tmp_path / "model"))


def echoing(root: Path, echo: ModelRef, chosen: TransformersSettings, stop: Callable[[], bool] = lambda: False) -> Generation:
    run = generation(root, echo, chosen, stop)
    run.engine = RayEngine(echo, chosen, Echo)
    return run


@pytest.mark.slow
def test_ray_starts_a_dead_replica_again_on_a_new_node(cluster: Cluster, echo: ModelRef, tmp_path: Path) -> None:
    notes, asked = Path(str(echo.path)), count(1)

    def stop() -> bool:
        """Not before the third process has taken something."""
        if next(asked) == 100:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(**NODE)
        return len(taken(notes)) == 3

    run = echoing(tmp_path, echo, settings(cluster), stop)
    wanted = keyed(echo, requests(20_000), settings(cluster))
    with pytest.raises(StoppedError):
        run.answer(wanted, "echo")
    found = [key for keys in taken(notes) for key in keys]
    assert sorted(set(found)) == [row["key"] for row in table(run, wanted)]
    assert len(found) - len(set(found)) <= 16  # asked again: at most what the dead replica had, half of 32


@pytest.mark.slow
def test_a_request_that_kills_replicas_ends_as_an_error_row_and_the_run_goes_on(cluster: Cluster, echo: ModelRef, tmp_path: Path) -> None:
    run = echoing(tmp_path, echo, settings(cluster))
    asked = requests(100)
    poison = ChatRequest([{"role": "user", "content": "poison"}])
    wanted = keyed(echo, [*asked[:50], poison, *asked[50:]], settings(cluster))
    stats = run.answer(wanted, "echo")
    assert stats.answered == 101
    assert 1 <= stats.errors <= 16  # what was in hand of the same replicas may be given up with it
    key = poison.key(echo, SAMPLING, settings(cluster).identity)
    assert sum(key in keys for keys in taken(Path(str(echo.path)))) == 3
    [row] = run.store.lookup(pl.Series("key", [key])).to_dicts()
    assert row["error"] == "replica_died: 3 replicas died with this request in hand"
    assert row["is_retryable"]


@pytest.mark.slow
def test_stopping_answers_what_has_been_handed_out_and_no_more(cluster: Cluster, echo: ModelRef, tmp_path: Path) -> None:
    ray.shutdown()  # so that this process joins again
    on_sigterm = signal.getsignal(signal.SIGTERM)
    asked = count()
    run = echoing(tmp_path, echo, settings(cluster), lambda: next(asked) >= 59)
    wanted = keyed(echo, requests(300), settings(cluster))
    with pytest.raises(StoppedError, match="59 of 300"):
        run.answer(wanted, "echo")
    assert signal.getsignal(signal.SIGTERM) is on_sigterm
    assert len(table(run, wanted)) == 59
    run.desk.stop = lambda: False
    assert run.answer(wanted, "the same replicas go on").answered == 241
    assert len(taken(Path(str(echo.path)))) == 2


@pytest.mark.slow
def test_replicas_without_a_place_are_announced_and_the_others_work(
    cluster: Cluster, echo: ModelRef, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ANNOUNCED_AFTER_SECONDS", 0.2)
    engine = RayEngine(echo, settings(cluster, replicas=3), Echo)
    calls = ((str(number), request) for number, request in enumerate(requests(80)))
    answers = engine.answer(calls, SAMPLING)
    next(answers)
    answers.close()  # as when too many answers are errors: what is in hand is dropped, and its replicas with it
    assert len(list(calls)) > 40
    again = dict(chain.from_iterable(engine.answer(((str(n), each) for n, each in enumerate(requests(40))), SAMPLING)))
    assert [again[str(n)].text for n in range(40)] == [each.messages[-1]["content"].upper() for each in requests(40)]
    waits = [record.getMessage() for record in caplog.records if "wait for a place" in record.getMessage()]
    assert "of 3 replicas wait for a place (an autoscaler may add nodes): each of 3 needs 1 CPU and 0 GPU on one node" in waits[0]


@pytest.mark.slow
def test_an_engine_that_cannot_go_on_ends_the_run_in_one_sentence(cluster: Cluster, echo: ModelRef) -> None:
    engine = RayEngine(echo, settings(cluster, replicas=1), Echo)
    with pytest.raises(ClusterError) as caught:
        list(engine.answer(iter([("k", ChatRequest([{"role": "user", "content": "nonsense"}]))]), SAMPLING))
    assert str(caught.value) == "a replica's engine failed: ValueError: it makes no sense"


@pytest.mark.slow
def test_a_replica_that_dies_while_it_loads_ends_the_run(cluster: Cluster, echo: ModelRef) -> None:
    with pytest.raises(ClusterError, match=r"^a replica died 3 times while it loaded the model: is there"):
        RayEngine(ModelRef("broken", "r1", echo.path), settings(cluster, replicas=1), Echo)


@pytest.mark.slow
def test_a_model_that_the_nodes_do_not_have_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"^a replica's engine failed: FileNotFoundError: the node \S+ has no folder /\S+/nowhere:"):
        chat_engine(ModelRef("gone", "r1", str(tmp_path / "nowhere")), settings(cluster, replicas=1))


@pytest.mark.skipif(bool(find_spec("vllm")), reason="vLLM is installed")
@pytest.mark.slow
def test_an_extra_that_the_nodes_do_not_have_ends_the_run(cluster: Cluster, model: ModelRef) -> None:
    there = RayCluster(address=cluster.address, replicas=1, gpus_per_replica=0)
    expected = r"^a replica's engine failed: NotInstalledError: vllm is not installed: pip install 'rlhi-dagster\[vllm\]'"
    with pytest.raises(ClusterError, match=expected):
        chat_engine(model, VllmSettings(dtype="float32", chunk_size=8, cluster=there))


@pytest.mark.slow
def test_too_few_gpus_end_the_run_after_a_while(cluster: Cluster, model: ModelRef) -> None:
    expected = r"^no replica found a place on the Ray cluster in [23] s: each of 2 needs 1 CPU and 1 GPU on one node; the cluster has 2 CPU"
    with pytest.raises(ClusterError, match=expected):
        chat_engine(model, settings(cluster, gpus_per_replica=1, patience_seconds=1.5))


def test_no_cluster_is_one_sentence(model: ModelRef) -> None:
    nowhere = RayCluster(address="127.0.0.1:1", replicas=1)
    with pytest.raises(ClusterError, match=r"^no Ray cluster to join at '127.0.0.1:1': run `ray start --head` on one machine"):
        chat_engine(model, settings(None).model_copy(update={"cluster": nowhere}))


def test_tensor_parallel_replicas_must_ask_for_their_gpus(model: ModelRef) -> None:
    cluster = RayCluster(replicas=1, gpus_per_replica=1)
    with pytest.raises(ClusterError, match="tensor_parallel is 2: set gpus_per_replica of the cluster to 2"):
        chat_engine(model, VllmSettings(dtype="float32", chunk_size=8, tensor_parallel=2, cluster=cluster))


def test_rewards_are_those_of_one_engine(cluster: Cluster, tmp_path: Path, save_tiny_llama: Save) -> None:
    model = saved(save_tiny_llama, tmp_path / "reward", LlamaForSequenceClassification)
    calls = [(str(n), RewardRequest([*each.messages, {"role": "assistant", "content": "yes"}])) for n, each in enumerate(requests(30))]
    spread = dict(chain.from_iterable(reward_engine(model, settings(cluster, replicas=1)).score(iter(calls))))
    alone = dict(chain.from_iterable(reward_engine(model, settings(None)).score(iter(calls))))
    assert [spread[key].error for key, _ in calls] == [alone[key].error for key, _ in calls]
    assert str(spread["29"].error).startswith("conversation_too_long")
    assert [spread[key].reward for key, _ in calls[:29]] == pytest.approx([alone[key].reward for key, _ in calls[:29]], abs=1e-5)
