"""The reference's log-probabilities: TRL's own values, each pair once, kept as they come; what is read is what the store has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.manifest_checks import step0_loss_is_ln2
from rlhi_dagster.training.pair_sets import TRAINING_ROWS
from rlhi_dagster.training.reference_keys import KIND, reference_key
from rlhi_dagster.training.settings import DPOSettings, TrainingSettings
from rlhi_dagster.workers import reference_logps, train_dpo, train_reward, train_sft
from rlhi_dagster.workers.dpo_shared_prefix import SharedPrefixDPOTrainer
from rlhi_dagster.workers.job import TrainingJob
from rlhi_dagster.workers.reference_logps import References, StoredReferences
from rlhi_dagster.workers.train_pairs import PairData, said

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
SETTINGS = DPOSettings(batch_size=4, micro_batch_size=4, max_length=4096, bf16=False, gradient_checkpointing=False, save_steps=50, seed=5)


class SharedPrefixFromStore(SharedPrefixDPOTrainer, StoredReferences):  # type: ignore[misc]
    pass


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Any) -> ModelRef:
    folder = tmp_path_factory.mktemp("reference") / "model"
    save_tiny_llama(folder, TEXTS, max_position_embeddings=4096, initializer_range=0.2)
    return ModelRef("tiny", weights_digest(folder), str(folder))


def pairs(first: int, last: int) -> list[dict[str, Any]]:
    """Pairs of various lengths, with and without a persona."""
    made = []
    for number in range(first, last):
        persona = [{"role": "system", "content": TEXTS[2] * (number % 3)}] if number % 3 else []
        prompt = [*persona, {"role": "user", "content": f"{TEXTS[number % 3] * (1 + number % 4)} {number}"}]
        made.append(
            {"pair_id": f"p{number}", "prompt": prompt, "chosen": TEXTS[number % 3] * (1 + number % 2), "rejected": f"No {number}."}
        )
    return made


def references(root: Path, start: ModelRef, settings: DPOSettings = SETTINGS, lines: list[str] | None = None) -> References:
    return References(ResponseStore(root, KIND, start.identity), start, settings, (lines if lines is not None else []).append)


def trainer(kind: type[DPOTrainer], start: ModelRef, rows: list[dict[str, Any]], out: Path, **more: Any) -> Any:
    config = DPOConfig(
        output_dir=str(out),
        max_length=None,
        per_device_train_batch_size=3,
        gradient_checkpointing=False,
        precompute_ref_log_probs=True,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        seed=1,
    )
    data = Dataset.from_list([{"prompt": r["prompt"], "chosen": said(r["chosen"]), "rejected": said(r["rejected"])} for r in rows])
    model = AutoModelForCausalLM.from_pretrained(start.source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(start.source)
    return kind(model=model, args=config, train_dataset=data, processing_class=tokenizer, **more)


def columns(made: Any) -> torch.Tensor:
    return torch.tensor([made.train_dataset["ref_chosen_logps"][:], made.train_dataset["ref_rejected_logps"][:]])


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pairs of each batch for which the reference was asked."""
    asked: list[int] = []
    work = DPOTrainer.compute_ref_log_probs

    def counted(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        asked.append(len(inputs["input_ids"]) // 2)
        return work(self, model, inputs)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", counted)
    return asked


@pytest.mark.parametrize(("stored", "plain"), [(StoredReferences, DPOTrainer), (SharedPrefixFromStore, SharedPrefixDPOTrainer)])
def test_values_are_those_of_trl_pair_by_pair(stored: Any, plain: Any, start: ModelRef, tmp_path: Path) -> None:
    rows = pairs(0, 10)
    right = columns(trainer(plain, start, rows, tmp_path / "plain"))
    found = columns(trainer(stored, start, rows, tmp_path / "stored", references=references(tmp_path / "store", start)))
    assert right.std() > 1
    torch.testing.assert_close(found, right, atol=1e-4, rtol=0)


def test_a_pair_that_another_set_has_is_not_computed_again(start: ModelRef, tmp_path: Path, computed: list[int]) -> None:
    lines: list[str] = []
    known = references(tmp_path / "store", start, lines=lines)
    trainer(StoredReferences, start, pairs(0, 8), tmp_path / "one", references=known)
    assert sum(computed) == 8
    computed.clear()
    more = pairs(4, 10)
    found = columns(trainer(StoredReferences, start, [*more, more[5]], tmp_path / "two", references=known))
    assert sum(computed) == 2, "pairs 8 and 9; the one that is there twice once"
    assert torch.equal(found[:, 5], found[:, 6])
    assert "reference log-probabilities, train: 5 of 7 pairs are known" in lines
    assert lines[-1].startswith("reference log-probabilities, train, tokens: ")
    assert not any(text in line for line in lines for text in TEXTS)
    computed.clear()
    assert torch.equal(columns(trainer(StoredReferences, start, [*more, more[5]], tmp_path / "three", references=known)), found)
    assert computed == []


def test_another_start_other_arithmetic_and_another_persona_have_keys_of_their_own(start: ModelRef) -> None:
    row = pairs(1, 2)[0]
    others = [
        (ModelRef("tiny", "r2"), row, SETTINGS),
        (start, row | {"prompt": row["prompt"][1:]}, SETTINGS),
        (start, row | {"chosen": "x"}, SETTINGS),
        (start, row | {"rejected": "x"}, SETTINGS),
        *((start, row, SETTINGS.model_copy(update=change)) for change in ({"bf16": True}, {"shared_prefix": True})),
        (start, row, SETTINGS.model_copy(update={"bf16": True, "sharding": "fsdp2"})),
    ]
    keys = {reference_key(*given) for given in [(start, row, SETTINGS), *others]}
    assert len(keys) == 1 + len(others)
    same = SETTINGS.model_copy(update={"learning_rate": 1.0, "beta": 0.5, "seed": 9, "max_length": 64})
    assert reference_key(start, row | {"pair_id": "q"}, same) in keys


def test_a_kill_loses_at_most_a_chunk(start: ModelRef, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_logps, "_CHUNK_PAIRS", 4)
    known = references(tmp_path / "store", start)
    work = StoredReferences.compute_ref_log_probs

    def dying(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        if sum(computed) == 9:
            raise KeyboardInterrupt
        return work(self, model, inputs)

    with monkeypatch.context() as patched:
        patched.setattr(StoredReferences, "compute_ref_log_probs", dying)
        with pytest.raises(KeyboardInterrupt):
            trainer(StoredReferences, start, pairs(0, 12), tmp_path / "one", references=known)
    keys = pl.Series([known.key(row) for row in pairs(0, 12)])
    assert len(known.store.missing(keys)) == 12 - 8
    computed.clear()
    again = columns(trainer(StoredReferences, start, pairs(0, 12), tmp_path / "two", references=known))
    assert sum(computed) == 4
    whole = columns(trainer(DPOTrainer, start, pairs(0, 12), tmp_path / "three"))
    torch.testing.assert_close(again, whole, atol=1e-4, rtol=0)


# The workers


def job(folder: Path, start: ModelRef, rows: list[dict[str, Any]], method: str = "dpo", **changes: Any) -> TrainingJob:
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=TRAINING_ROWS).write_parquet(folder / "train.parquet")
    chosen = SETTINGS.model_copy(update=changes).model_dump()
    given = chosen if method == "dpo" else {name: chosen[name] for name in TrainingSettings.model_fields}
    paths = {"train": str(folder / "train.parquet"), "validation": None, "out": str(folder / "tiny"), "store": str(folder / "store")}
    told = {"name": "tiny", "method": method, "model": start.to_dict(), "settings": given, "inputs": "v1", "extra": {}, "origin": {}}
    return TrainingJob.from_dict(told | paths)


def built(made: TrainingJob) -> tuple[Any, PairData]:
    data = PairData(made, lambda line: None)
    build = {"dpo": train_dpo.build, "sft": train_sft.build, "reward": train_reward.build}[made.method]
    return build(made, data), data


@pytest.mark.parametrize("is_shared", [False, True])
def test_the_reference_that_is_used_is_the_stores(start: ModelRef, tmp_path: Path, is_shared: bool) -> None:
    work = job(tmp_path, start, pairs(0, 12), shared_prefix=is_shared)
    sound, data = built(work)
    assert data.facts["step0_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert step0_loss_is_ln2({"dpo": {"method": "dpo", **data.facts}}).passed
    first = next(iter(sound.get_train_dataloader()))["input_ids"].shape[0] // 2
    assert first == 4

    row = pairs(0, 12)[next(iter(sound._get_train_sampler()))]
    store = ResponseStore(work.store, KIND, start.identity)
    key = reference_key(start, row, work.settings)  # type: ignore[arg-type]
    kept = store.lookup(pl.Series([key]))
    for segment in store.folder.glob("*.parquet"):
        segment.unlink()
    poisoned = ResponseStore(work.store, KIND, start.identity)
    poisoned.append(kept.with_columns(chosen_logp=pl.col("chosen_logp") + 5))
    # Of the twelve pairs one thinks itself 5 nats behind: softplus(0.1 x 5) in the place of ln 2.
    off = (11 * math.log(2) + math.log1p(math.exp(0.5))) / 12
    with pytest.raises(ValueError, match=f"tiny: before the first step DPO's loss is {off:.4f}, not ln 2"):
        built(work)


@pytest.mark.parametrize("method", ["dpo", "sft", "reward"])
def test_no_pair_beyond_trls_own_limit_is_dropped_or_cut(method: str, start: ModelRef, tmp_path: Path) -> None:
    long = {"pair_id": "long", "prompt": [{"role": "user", "content": "!" * 1500}], "chosen": "Plant tulips.", "rejected": "No."}
    made, data = built(job(tmp_path, start, [*pairs(0, 3), long], method))
    assert len(made.train_dataset) == len(data.train) == 4
    whole = data.tokenizer.apply_chat_template([*long["prompt"], *said("Plant tulips.")], return_dict=True)["input_ids"]
    assert len(whole) > 1500
    batch = made.data_collator([made.train_dataset[3]])
    assert batch["input_ids"][0].tolist() == whole
    assert batch["input_ids"].shape[1] == len(whole)
    if method == "dpo":
        # What TRL would do of itself: 1,024 tokens, and a prompt that fills them goes without a word.
        assert len(trainer_with_default_length(start, [*pairs(0, 3), long], tmp_path).train_dataset) == 3


def trainer_with_default_length(start: ModelRef, rows: list[dict[str, Any]], out: Path) -> Any:
    config = DPOConfig(output_dir=str(out), use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, gradient_checkpointing=False)
    data = Dataset.from_list([{"prompt": r["prompt"], "chosen": said(r["chosen"]), "rejected": said(r["rejected"])} for r in rows])
    tokenizer = AutoTokenizer.from_pretrained(start.source)
    model, before = (AutoModelForCausalLM.from_pretrained(start.source, dtype=torch.float32) for _ in range(2))
    return DPOTrainer(model=model, ref_model=before, args=config, train_dataset=data, processing_class=tokenizer)
