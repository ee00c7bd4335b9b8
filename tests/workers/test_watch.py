"""What is watched while a policy trains: curves that go on after a kill, KL to the start, samples; and none of it disturbs training."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.graph import pipes
from rlhi_dagster.training.curves import OBSERVED
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.settings import DPOSettings
from rlhi_dagster.workers import probe as probe_module
from rlhi_dagster.workers import train_loop, watch
from rlhi_dagster.workers.event_files import EventFiles
from rlhi_dagster.workers.probe import Probe, prompts_for
from rlhi_dagster.workers.train_pairs import PairData
from tests import forked

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
PROMPTS = [[{"role": "user", "content": f"{text} {number}"}] for text in TEXTS for number in range(3)]
SETTINGS = DPOSettings(
    learning_rate=3e-3,
    batch_size=4,
    micro_batch_size=2,
    warmup_steps=1,
    max_length=96,
    bf16=False,
    gradient_checkpointing=False,
    save_steps=2,
    logging_steps=1,
    seed=5,
)
KILLED = """
import json, os, signal, sys
from rlhi_dagster.workers import train_dpo, train_loop
job, note = train_loop.TrainingJob.from_dict(json.loads(sys.argv[1])), train_loop.Watch.on_log

def on_log(self, args, state, control, **kwargs):
    note(self, args, state, control, **kwargs)
    if state.global_step == 5:
        os.kill(os.getpid(), signal.SIGKILL)

train_loop.Watch.on_log = on_log
train_dpo.train(job, print)
"""
WORKER = """
import os, sys, time
from dagster_pipes import PipesContext, open_dagster_pipes
with open_dagster_pipes():
    told = {"name": "b", "line": "step 1", "numbers": {"training/loss": 0.5}}
    PipesContext.get().report_custom_message({"observed": told})
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.05)
    PipesContext.get().report_custom_message({"seconds": 1})
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("watch") / "model"
    save_tiny_llama(folder, TEXTS, max_position_embeddings=128, initializer_range=0.2)
    return folder


def job(model: Path, out: Path, **changed: Any) -> dict[str, Any]:
    rows = [
        {"pair_id": f"p{number}", "prompt": PROMPTS[number % 9], "chosen": f"Sure. {TEXTS[number % 3]}", "rejected": f"No {number}."}
        for number in range(28)
    ]
    out.parent.mkdir(parents=True)
    files = {"train": rows[:24], "validation": rows[24:]}
    for name, part in files.items():
        pl.DataFrame(part, schema=TRAINING_ROWS).write_parquet(out.parent / f"{name}.parquet")
    paths = {name: str(out.parent / f"{name}.parquet") for name in files}
    given = {
        "name": "tiny",
        "method": "dpo",
        "model": ModelRef("tiny", weights_digest(model), str(model)).to_dict(),
        "settings": SETTINGS.model_dump(),
        "out": str(out),
        "inputs": "v1",
        "store": str(out.parent / "responses"),
        "extra": {"reply_tokens": 12},
        "events": str(out.parent / "tensorboard"),
        **paths,
    }
    return given | changed


def train(given: dict[str, Any], report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    from rlhi_dagster.workers import train_dpo

    return train_dpo.train(train_loop.TrainingJob.from_dict(given), report)


def events(folder: Path, run: str) -> dict[str, list[int]]:
    """Steps of every curve as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / run)).Reload()
    return {name: [point.step for point in read.Scalars(name)] for name in read.Tags()["scalars"]}


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], list[str], list[Any]]]:
    """A watched run: its artefact, manifest, lines and observations."""
    out, lines, observed = tmp_path_factory.mktemp("run") / "a/tiny", list[str](), list[Any]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watch, "observe", lambda name, line, numbers: observed.append((name, line, dict(numbers))))
        yield out, train(job(model, out), lines.append), lines, observed


def test_every_point_has_speed_and_memory_and_every_evaluation_samples(undisturbed: Any) -> None:
    _, manifest, _, _ = undisturbed
    assert [point["step"] for point in manifest["steps"]] == [1, 2, 3, 4, 5, 6]
    for point in manifest["steps"]:
        assert 0 < point["useful_tokens_per_second"] < point["tokens_per_second"]
        assert point["memory_gib"] > 0.01
        assert {"loss", "entropy", "learning_rate", "grad_norm", "logps/chosen", "rewards/margins"} <= point.keys()
    evaluations = manifest["evaluations"]
    assert [point["step"] for point in evaluations] == [0, 2, 4, 6]
    assert [point["eval_samples"] for point in evaluations] == [4.0] * 4
    assert evaluations[0]["eval_kl"] == 0
    assert all(point["eval_kl"] > 10 * point["eval_kl_error"] > 0 or point["eval_kl"] > 1e-4 for point in evaluations[1:])
    assert manifest["validation"]["kl"] == next(p["eval_kl"] for p in evaluations if p["step"] == manifest["chosen"]["step"])


def test_the_log_and_observations_tell_the_same_numbers(undisturbed: Any) -> None:
    _, manifest, lines, observed = undisturbed
    assert next(line for line in lines if "held-out" in line).startswith("training tiny: step 0 of 6 on held-out users, loss 0.69, ")
    ended = [line for line in lines if line.startswith("training tiny: step 6 of 6, loss ")]
    assert len(ended) == 1
    assert ended[0].endswith(" 0 s left")
    assert "KL " in ended[0]
    assert "tokens/s" in ended[0]
    assert [numbers["held_out/step"] for _, line, numbers in observed if "held-out" in line] == [0, 2, 4, 6]
    name, _, last = observed[-1]
    assert name == "tiny"
    assert last["held_out/kl"] == manifest["evaluations"][-1]["eval_kl"]
    assert last["training/loss"] == manifest["steps"][-1]["loss"]
    assert not any(text in "\n".join(lines) for text in TEXTS)


def test_sampling_does_not_change_what_is_trained(model: Path, undisturbed: Any, tmp_path: Path) -> None:
    out = tmp_path / "unwatched/tiny"
    train(job(model, out, extra={}, events=None))
    one, two = (load_file(folder / "model.safetensors") for folder in (undisturbed[0], out))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_a_resumed_run_draws_one_line(model: Path, undisturbed: Any, tmp_path: Path) -> None:
    out = tmp_path / "killed/tiny"
    given = job(model, out)
    killed = forked.run(KILLED, json.dumps(given))
    assert killed.returncode == -9, killed.stderr
    assert events(Path(given["events"]), "training")["loss"] == [1, 2, 3, 4, 5]
    manifest = train(given)
    assert [point["step"] for point in manifest["steps"]] == [1, 2, 3, 4, 5, 6]
    for folder in (Path(given["events"]), undisturbed[0].parent / "tensorboard"):
        trained, held_out = events(folder, "training"), events(folder, "held_out")
        assert set(map(tuple, trained.values())) == {(1, 2, 3, 4, 5, 6)}
        assert set(map(tuple, held_out.values())) >= {(0, 2, 4, 6)}
        assert held_out["kl"] == held_out["loss"] == held_out["samples_malformed"] == [0, 2, 4, 6]


def test_files_of_one_second_are_read_in_the_order_in_which_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, step in ((9, 0), (8, 1)):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        files = EventFiles(tmp_path, step)
        files.add("training", step + 1, {"loss": 1.0})
        files.close()
    assert events(tmp_path, "training") == {"loss": [1, 2]}


def trainer(model: Path, folder: Path, scale: float) -> tuple[Trainer, Any]:
    """A trainer whose policy is the model with noise of some scale on it."""
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += scale * torch.randn_like(parameter)
    return Trainer(model=policy, args=TrainingArguments(output_dir=str(folder), report_to=[], use_cpu=True)), tokenizer


def test_the_divergence_of_one_token_is_exact(model: Path, tmp_path: Path) -> None:
    trains, tokenizer = trainer(model, tmp_path, 0.05)
    start = AutoModelForCausalLM.from_pretrained(model)
    found = Probe(trains, tokenizer, PROMPTS, 1, lambda: AutoModelForCausalLM.from_pretrained(model))()
    exact = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]])
        now, then = (each.eval()(ids).logits[0, -1].double().log_softmax(-1) for each in (trains.model, start))
        exact.append(float((now.exp() * (now - then)).sum().detach()))
    assert found["kl"] == pytest.approx(sum(exact) / len(exact), rel=1e-4)
    assert found["kl"] > 0.01
    assert found["samples"] == 9


def test_the_divergence_of_replies_is_the_mean_log_ratio(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trains, tokenizer = trainer(model, tmp_path, 0.05)
    probe = Probe(trains, tokenizer, PROMPTS[:1] * 600, 4, lambda: AutoModelForCausalLM.from_pretrained(model))
    ratios: list[float] = []
    measure = probe._divergences

    def counted(policy: Any, drawn: Any) -> list[float]:
        width = drawn.tokens.shape[1] - drawn.counts.shape[1]
        sides = []
        for each in (policy, probe._start()):
            logits = each(drawn.tokens, attention_mask=drawn.attends).logits[:, width - 1 : -1].log_softmax(-1)
            sides.append(logits.gather(-1, drawn.tokens[:, width:, None])[..., 0])
        ratios.extend(((sides[0] - sides[1]) * drawn.counts).sum(1).tolist())
        return measure(policy, drawn)

    monkeypatch.setattr(probe, "_divergences", counted)
    found = probe()
    plain = torch.tensor(ratios)
    error = float(plain.std() / len(ratios) ** 0.5)
    assert abs(found["kl"] - float(plain.mean())) < 4 * error
    assert found["kl_error"] < 0.7 * error
    assert found["kl"] > 10 * found["kl_error"]


def test_a_probe_repeats_itself_and_leaves_random_numbers_and_mode_alone(model: Path, tmp_path: Path) -> None:
    trains, tokenizer = trainer(model, tmp_path, 0.05)
    probe = Probe(trains, tokenizer, PROMPTS, 12, lambda: AutoModelForCausalLM.from_pretrained(model))
    trains.model.train()
    before = torch.get_rng_state()
    first = probe()
    assert torch.equal(torch.get_rng_state(), before)
    assert trains.model.training
    assert probe() == first
    flaws = [value for name, value in first.items() if name.startswith("samples_malformed/")]
    assert first["samples_malformed"] == pytest.approx(sum(flaws))
    assert 0 < first["samples_malformed"] <= 1


def test_a_reply_that_is_cut_is_not_broken_for_want_of_an_end(model: Path, tmp_path: Path) -> None:
    trains, tokenizer = trainer(model, tmp_path, 0.0)
    start = AutoModelForCausalLM.from_pretrained(model)
    whole, cut = (Probe(trains, tokenizer, PROMPTS, 2, lambda: start, is_cut=is_cut)() for is_cut in (False, True))
    assert whole["samples_malformed/ran_on"] > 0
    assert "samples_malformed/ran_on" not in cut
    assert (cut["kl"], cut["sample_tokens"]) == (whole["kl"], whole["sample_tokens"])


def test_prompts_are_answered_in_order_as_many_at_once_as_fit(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trains, tokenizer = trainer(model, tmp_path, 0.0)
    short, long = [{"role": "user", "content": "Plant"}], [{"role": "user", "content": "Plant tulips in spring! " * 3}]
    prompts = [short, short, long, short, short, short]
    probe = Probe(trains, tokenizer, prompts, 4, lambda: None)
    widths = [len(ids) + 4 for ids in probe._ids([short, long])]
    monkeypatch.setattr(probe_module, "_MOST_TOKENS", 2 * widths[1])
    groups = list(probe._groups())
    assert [prompt for group in groups for prompt in group] == prompts
    assert all(len(group) * max(len(ids) + 4 for ids in probe._ids(group)) <= 2 * widths[1] for group in groups)
    assert len(groups) == 3
    monkeypatch.setattr(probe_module, "_MOST_TOKENS", 1)
    assert list(probe._groups()) == [[prompt] for prompt in prompts]


def test_no_samples_are_drawn_if_none_are_asked_for(model: Path, tmp_path: Path) -> None:
    given = job(model, tmp_path / "run/tiny")
    given["settings"] |= {"probe_samples": 0}
    data = PairData(train_loop.TrainingJob.from_dict(given), lambda line: None)
    assert data.validation
    assert data.probe(None) is None  # type: ignore[arg-type]
    assert data.forecast(1000.0).start == 0


def test_adapters_are_switched_off_for_the_start(model: Path, tmp_path: Path) -> None:
    def adapted(scale: float) -> Any:
        trains, tokenizer = trainer(model, tmp_path, 0.0)
        trains.model = get_peft_model(trains.model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
        torch.manual_seed(2)
        with torch.no_grad():
            for name, parameter in trains.model.named_parameters():
                if "lora_B" in name:
                    parameter += scale * torch.randn_like(parameter)
        return Probe(trains, tokenizer, PROMPTS, 1, lambda: pytest.fail("loaded the start beside its adapters"))()

    assert adapted(0.0)["kl"] == 0
    assert adapted(0.2)["kl"] > 0.01


def test_prompts_are_distinct_short_enough_and_in_an_order_of_their_own(model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    many = [[{"role": "user", "content": f"Plant {number}"}] for number in range(64)]
    long = [{"role": "user", "content": "tulips " * 50}]
    found = prompts_for([*many, long, *many], tokenizer, 40, 32)
    assert len(found) == 32
    assert long not in found
    assert len({str(prompt) for prompt in found}) == 32
    assert prompts_for([*reversed(many), long], tokenizer, 40, 32) == found


def test_what_a_worker_tells_is_observed_while_it_works(tmp_path: Path) -> None:
    messages: list[Any] = []

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def checkpoints(context):
        messages.extend(*pipes.run(context, "worker", [sys.executable, "-c", WORKER, str(tmp_path / "seen")], [{}]))
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        found: list[Any] = []

        def look() -> None:
            deadline = time.monotonic() + 60
            while not found and time.monotonic() < deadline:
                found.extend(instance.fetch_observations(dg.AssetKey("checkpoints"), limit=10).records)
                time.sleep(0.1)
            (tmp_path / "seen").touch()

        looking = threading.Thread(target=look)
        looking.start()
        assert dg.materialize([checkpoints], partition_key="b", instance=instance).success
        looking.join()
        (record,) = found
    observation = record.event_log_entry.dagster_event.asset_observation_data.asset_observation
    assert observation.partition == "b"
    assert observation.metadata["training/loss"].value == 0.5
    assert messages == [{"seconds": 1}]
    assert OBSERVED == "observed"
