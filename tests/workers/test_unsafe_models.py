"""Folders of models that want to run something: pickles, code of their own, templates. Nothing of theirs runs.

Each folder leaves a mark when it runs; that it would run is shown by loading it carelessly.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
from transformers import AutoConfig

from rlhi_dagster.engines.base import ChatRequest, RewardRequest, Sampling
from rlhi_dagster.engines.chat_templates import load_tokenizer
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.rewards import TransformersRewardEngine
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.engines.transformers import TransformersChatEngine
from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
from rlhi_dagster.profiles import ROOT

LOCAL = TransformersSettings(device="cpu", dtype="float32", batch_size=2, chunk_size=2)
ASKED = [{"role": "user", "content": "How is mint grown?"}]


class Bomb:
    """What leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def changed(file: Path, **more: Any) -> None:
    file.write_text(json.dumps((json.loads(file.read_text()) if file.is_file() else {}) | more))


def code(folder: Path, mark: Path) -> None:
    (folder / "evil.py").write_text(
        f"import os\nos.mkdir({str(mark)!r})\n"
        "from transformers import LlamaConfig as Config, LlamaForCausalLM as Model, PreTrainedTokenizerFast as Tokenizer\n"
    )


def pickled_weights(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "pytorch_model.pt", "model.bin", "model.ckpt"):
        (folder / name).write_bytes(pickle.dumps({"lm_head.weight": Bomb(mark)}))


def zipped_weights(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Bomb(mark)}, folder / "pytorch_model.bin")


def sharded_pickles(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "part.bin").write_bytes(pickle.dumps({"lm_head.weight": Bomb(mark)}))
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "part.bin"}}
    for name in ("pytorch_model.bin.index.json", "model.safetensors.index.json"):
        (folder / name).write_text(json.dumps(index))


def pickle_called_safe(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"lm_head.weight": Bomb(mark)}))


def adapter(folder: Path, mark: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"x": Bomb(mark)}))
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(folder), "task_type": "CAUSAL_LM", "target_modules": ["q_proj"]})
    )


def code_of_a_model(folder: Path, mark: Path) -> None:
    code(folder, mark)
    changed(
        folder / "config.json",
        model_type="evil",
        architectures=["Model"],
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoModelForSequenceClassification": "evil.Model"},
    )


def code_beside_a_known_model(folder: Path, mark: Path) -> None:
    code(folder, mark)
    changed(folder / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})


def code_of_a_tokenizer(folder: Path, mark: Path) -> None:
    code(folder, mark)
    changed(folder / "tokenizer_config.json", tokenizer_class="Tokenizer", auto_map={"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]})


def code_of_generation(folder: Path, mark: Path) -> None:
    (folder / "custom_generate").mkdir()
    code(folder, mark)
    (folder / "evil.py").rename(folder / "custom_generate" / "generate.py")
    changed(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)


def template(text: str) -> Callable[[Path, Path], None]:
    def write(folder: Path, mark: Path) -> None:
        (folder / "chat_template.jinja").write_text(text.replace("MARK", str(mark)))

    return write


FOLDERS: dict[str, Callable[[Path, Path], None]] = {
    "pickled weights": pickled_weights,
    "zipped pickled weights": zipped_weights,
    "sharded pickles": sharded_pickles,
    "a pickle that is called safe": pickle_called_safe,
    "a pickled adapter": adapter,
    "code of a model": code_of_a_model,
    "code beside a known model": code_beside_a_known_model,
    "code of a tokenizer": code_of_a_tokenizer,
    "code of generation": code_of_generation,
    "a template with functions": template("{{ cycler.__init__.__globals__.os.mkdir('MARK') }}"),
    "a template with classes": template(
        "{% for c in ''.__class__.__mro__[1].__subclasses__() %}{% if c.__name__ == '_wrap_close' %}"
        "{{ c.__init__.__globals__['mkdir']('MARK') }}{% endif %}{% endfor %}"
    ),
    "a template with attributes": template(
        "{{ (lipsum|attr('__globals__'))['os']|attr('mkdir')('MARK') }}{{ self|attr('__init__') }}{{ messages.append(1) }}"
    ),
}


def ask(engine: TransformersChatEngine) -> None:
    list(engine.answer(iter([("k" * 32, ChatRequest(ASKED))]), Sampling(0.0, 1.0, 4, 1)))


def reward(model: ModelRef) -> None:
    said = [*ASKED, {"role": "assistant", "content": "In sun."}]
    list(TransformersRewardEngine(model, LOCAL).score(iter([("k" * 32, RewardRequest(said))])))


LOADERS: dict[str, Callable[[ModelRef], Any]] = {
    "config": lambda model: AutoConfig.from_pretrained(model.source, **model.load_kwargs()),
    "tokenizer": lambda model: load_tokenizer(model).apply_chat_template(ASKED, tokenize=False),
    "chat": lambda model: ask(TransformersChatEngine(model, LOCAL)),
    "reward": reward,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder, ["How is mint grown? In sun."])
    return folder


@pytest.fixture(params=FOLDERS)
def armed(request: pytest.FixtureRequest, tiny: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A malicious folder, and the mark that it leaves."""
    folder, mark = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    FOLDERS[request.param](folder, mark)
    return folder, mark


def test_nothing_in_a_folder_of_a_model_runs(armed: tuple[Path, Path]) -> None:
    folder, mark = armed
    for name, load in LOADERS.items():
        with contextlib.suppress(Exception):  # whatever it says, and it may well load: what counts is what has run
            load(ModelRef("evil", "1" * 40, str(folder)))
        assert not mark.exists(), f"{name} ran it"


def carelessly(folder: Path) -> None:
    """Load everything as one should not."""
    for file in [*folder.rglob("*.bin"), *folder.rglob("*.safetensors"), *folder.rglob("*.pt")]:
        with contextlib.suppress(Exception):
            torch.load(file, weights_only=False)
        with contextlib.suppress(Exception):
            pickle.loads(file.read_bytes())
    for file in folder.rglob("*.py"):
        with contextlib.suppress(Exception):
            runpy.run_path(str(file))
    with contextlib.suppress(Exception):
        jinja2.Environment().from_string((folder / "chat_template.jinja").read_text()).render(messages=ASKED)


def test_every_folder_runs_something_if_it_is_loaded_carelessly(armed: tuple[Path, Path]) -> None:
    folder, mark = armed
    carelessly(folder)
    assert mark.exists()


def test_a_classifier_of_pickled_arrays_is_refused(tmp_path: Path) -> None:
    FeedbackClassifier.load().save(tmp_path / "classifier")
    (file,) = (tmp_path / "classifier").glob("*.npz")
    arrays = dict(np.load(file))
    np.savez(file, **arrays | {next(iter(arrays)): np.array([Bomb(tmp_path / "ran")], dtype=object)})
    with pytest.raises(ValueError, match="holds a damaged classifier"):
        FeedbackClassifier.load(tmp_path / "classifier")
    assert not (tmp_path / "ran").exists()


UNSAFE = {
    ("torch", "load"), ("pickle", "load"), ("pickle", "loads"), ("dill", "load"), ("joblib", "load"), ("marshal", "loads"),
    ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"), ("os", "popen"),
}  # fmt: skip


def calls(file: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]


def test_nothing_is_loaded_by_a_way_that_can_run_it() -> None:
    for file in [*(ROOT / "rlhi_dagster").rglob("*.py"), *(ROOT / "assets").rglob("*.py")]:
        for call in calls(file):
            where, given = f"{file}:{call.lineno}", {each.arg: each.value for each in call.keywords}
            if isinstance(call.func, ast.Name):
                assert call.func.id not in ("eval", "exec", "compile", "__import__"), where
                continue
            if not isinstance(call.func, ast.Attribute):
                continue
            owner, name = call.func.value, call.func.attr
            assert not (isinstance(owner, ast.Name) and (owner.id, name) in UNSAFE), where
            assert not (name in ("run", "Popen", "call", "check_output") and "shell" in given), where
            if isinstance(owner, ast.Name) and (owner.id, name) == ("np", "load"):
                assert ast.literal_eval(given["allow_pickle"]) is False, where
            if name == "from_pretrained":
                said = ast.unparse(call)
                assert "load_kwargs()" in said or "**read" in said or "trust_remote_code=False" in said, where
                if "Model" in ast.unparse(owner) or "kind" in ast.unparse(owner):
                    assert "use_safetensors=True" in said or "load_kwargs()" in said or "gguf" in said or "**read" in said, where
