"""Templates of models that can think: no engine and no trainer lets them, and what carries loss in training is the reply alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trl
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhi_dagster.engines.chat_templates import ARGUMENTS, load_tokenizer, without_thoughts
from rlhi_dagster.engines.models import ModelRef, weights_digest
from rlhi_dagster.workers import mask_check
from rlhi_dagster.workers.train_pairs import said
from tests.workers.test_mask_check import ROWS, trainer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
"""Chat templates of published models, as they come with TRL."""
THINKING = [file for file in sorted(TEMPLATES.glob("*.jinja")) if "enable_thinking" in file.read_text() and "_training" not in file.stem]
PROMPT = ROWS[0]["prompt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> Path:
    made = tmp_path_factory.mktemp("templates")
    save_tiny_llama(made, [message["content"] for message in PROMPT])
    return made


def tokenizer_with(folder: Path, template: str) -> PreTrainedTokenizerBase:
    """The tiny model's tokenizer with a template and that template's markers."""
    made = AutoTokenizer.from_pretrained(folder)
    made.add_special_tokens({"additional_special_tokens": sorted(set(re.findall(r"<[|/]?[A-Za-z_|]+>", template)))})
    made.chat_template = template
    return made


@pytest.mark.parametrize(
    "file",
    [file for file in sorted(TEMPLATES.glob("*.jinja")) if "enable_thinking" in file.read_text() and "_training" not in file.stem],
    ids=lambda file: file.stem,
)
def test_the_template_is_as_if_told_so_at_every_call(folder: Path, file: Path) -> None:
    tokenizer = tokenizer_with(folder, file.read_text())
    conversations = [(PROMPT, True), ([*PROMPT, *said("Water it.")], False)]

    def rendered(**arguments: bool) -> list[str]:
        return [
            str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_asked, **arguments))
            for messages, is_asked in conversations
        ]

    told = rendered(**ARGUMENTS)
    without_thoughts(without_thoughts(tokenizer))
    assert rendered() == told
    assert tokenizer.chat_template.count("{% set enable_thinking = false %}") == 1


def test_a_template_that_knows_nothing_of_thoughts_stays_as_it_is(folder: Path) -> None:
    template = (TEMPLATES / "qwen2_5.jinja").read_text()
    assert without_thoughts(tokenizer_with(folder, template)).chat_template == template


@pytest.mark.parametrize("name", ["llama3_1", "qwen2_5", "qwen3", "qwen3_6", "gemma4"])
def test_the_reply_alone_carries_loss(folder: Path, tmp_path: Path, name: str) -> None:
    tokenizer = without_thoughts(tokenizer_with(folder, (TEMPLATES / f"{name}.jinja").read_text()))
    made = trainer("dpo", tokenizer, tmp_path, tokenizer.chat_template)
    assert mask_check.check(name, made, tokenizer, train=ROWS)["train"]["rows"] == len(ROWS)


def test_a_saved_tokenizer_goes_on_asking_for_no_thoughts(folder: Path, tmp_path: Path) -> None:
    tokenizer_with(folder, (TEMPLATES / "qwen3.jinja").read_text()).save_pretrained(tmp_path / "given")
    load_tokenizer(ModelRef("given", weights_digest(tmp_path / "given"), str(tmp_path / "given"))).save_pretrained(tmp_path / "trained")
    asked = AutoTokenizer.from_pretrained(tmp_path / "trained").apply_chat_template(PROMPT, tokenize=False, add_generation_prompt=True)
    assert asked.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
