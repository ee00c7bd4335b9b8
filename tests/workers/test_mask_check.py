"""What carries loss, in the batches of TRL's own collators: the replies and their end, whatever the template; a broken one stops a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhi_dagster.training.loss_mask import Marked, ReplyLayout, fault, text
from rlhi_dagster.training.policy import CHAT_TEMPLATE
from rlhi_dagster.workers import mask_check
from rlhi_dagster.workers.mask_check import MaskError

ROWS = [
    {
        "pair_id": f"p{number}",
        "prompt": [
            {"role": "system", "content": "Likes lists."},
            {"role": "user", "content": "How do I grow mint?"},
            {"role": "assistant", "content": "Water it well."},
            {"role": "user", "content": "Shorter!" * (1 + number)},
        ],
        "chosen": "Water it well." * (number + 1),
        "rejected": "¡Claro! 🌱 mint" * (1 + number % 2),
    }
    for number in range(3)
]
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHAT_ML = (
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}\n{{ message['content'] }}<|eot_id|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant\n{% endif %}"
)
NO_END = CHAT_TEMPLATE.replace("{{ message['content'] }}<|eot_id|>{% endgeneration %}", "{{ message['content'] }}{% endgeneration %}")
SIGNED = CHAT_TEMPLATE.replace("{% generation %}", "{% generation %}{% if loop.last %}Answer: {% endif %}")
COUNTED = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}{{ messages | length }}")
HASTY = CHAT_TEMPLATE.replace("assistant<|end_header_id|>\n\n{% endif %}", "assistant<|end_header_id|>\n\nWell, {% endif %}")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, save_tiny_llama: Callable[..., None]) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("masking")
    save_tiny_llama(folder, [message["content"] for row in ROWS for message in row["prompt"]])
    return AutoTokenizer.from_pretrained(folder)


def trainer(method: str, tokenizer: PreTrainedTokenizerBase, folder: Path, template: str = CHAT_TEMPLATE, rows: Any = ROWS) -> Any:
    from datasets import Dataset

    tokenizer.chat_template = template
    made = mask_check._stand_in(method, rows[0], tokenizer, str(folder))
    said = [{name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")} for row in rows]
    sides = [one if method == "dpo" else {"completion": one["chosen"]} for one in said]
    data = Dataset.from_list([{"prompt": row["prompt"], **side} for row, side in zip(rows, sides, strict=True)])
    packing = () if method == "dpo" else (False, None)
    made.train_dataset = made._prepare_dataset(data, tokenizer, made.args, *packing, "train")
    return made


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, LLAMA_3, CHAT_ML])
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_exactly_the_replies_and_their_end_carry_loss(
    method: str, template: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    made = trainer(method, tokenizer, tmp_path, template)
    found = mask_check.check("tiny", made, tokenizer, train=ROWS)["train"]
    end = "<|eot_id|>\n" if template is CHAT_ML else "<|eot_id|>"
    replies = [row[side] for side in ("chosen", "rejected")[: 1 + (method == "dpo")] for row in ROWS]
    expected = sum(len(tokenizer.encode(reply + end, add_special_tokens=False)) for reply in replies)
    assert (found["rows"], found["loss_tokens"]) == (3, expected)
    assert found["tokens"] > 2 * expected / 1.5


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (NO_END, "tiny: the chat template ends replies by no marker"),
        (SIGNED, "tiny: pair p0, chosen reply: the tokens that carry loss are not the reply and its end-of-turn marker"),
        (COUNTED, "tiny: pair p0, chosen reply: the tokens that carry loss are not the reply"),
        (HASTY, "tiny: pair p0, chosen reply: the reply follows another prompt"),
        ("{{ bos_token }}{{ messages[0]['content'] }}", "tiny: the chat template leaves replies out"),
    ],
)
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_template_that_breaks_the_mask_stops_the_run(
    method: str, template: str, message: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    made = trainer(method, tokenizer, tmp_path, template)
    with pytest.raises(MaskError, match=re.escape(message)) as raised:
        mask_check.check("tiny", made, tokenizer, train=ROWS)
    assert not any(row["chosen"] in str(raised.value) for row in ROWS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda mask, attention: mask.zero_(), "no token carries loss"),
        (lambda mask, attention: mask.copy_(attention), "elsewhere than at the end"),
        (lambda mask, attention: mask[:, 1].fill_(1), "elsewhere than at the end"),
        (lambda mask, attention: mask.fill_(1), "elsewhere than at the end"),
        (lambda mask, attention: mask[4, attention[4].sum() - 1].fill_(0), "pair p1, rejected reply: tokens carry loss elsewhere"),
        (
            lambda mask, attention: mask[2, int(mask[2].int().argmax())].fill_(0),
            "pair p2, chosen reply: the tokens that carry loss are not",
        ),
        (lambda mask, attention: mask[0, int(mask[0].int().argmax()) - 1].fill_(1), "pair p0, chosen reply: the tokens that carry loss"),
        (lambda mask, attention: mask[0, int(attention[0].sum())].fill_(1), "pair p0, chosen reply: the tokens that carry loss are not"),
    ],
)
def test_a_spoilt_mask_is_found_in_whichever_row_and_side(
    spoil: Callable[[torch.Tensor, torch.Tensor], object], message: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    made = trainer("dpo", tokenizer, tmp_path)
    collate = made.data_collator

    def spoilt(examples: list[Any]) -> dict[str, torch.Tensor]:
        batch = collate(examples)
        spoil(batch["completion_mask"], batch["attention_mask"])
        return batch

    made.data_collator = spoilt
    with pytest.raises(MaskError, match=message):
        mask_check.check("tiny", made, tokenizer, train=ROWS)


def test_rows_in_another_order_than_the_pairs_are_found(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    made = trainer("dpo", tokenizer, tmp_path)
    with pytest.raises(MaskError, match="pair p2, chosen reply"):
        mask_check.check("tiny", made, tokenizer, train=ROWS[::-1])


def test_a_reply_that_a_tokenizer_normalises_is_what_counts() -> None:
    seen = Marked([1, 2], [False, True])

    def decode(ids: Any) -> str:
        return "é<end>" if list(ids) == [2] else "?"

    assert fault(seen, [1], "e\u0301<end>", decode, lambda said: [2]) is None
    assert (
        fault(seen, [1], "e\u0301<end>", decode, lambda said: [3])
        == "the tokens that carry loss are not the reply and its end-of-turn marker"
    )


def test_white_space_counts_unless_the_template_trims_it() -> None:
    assert ReplyLayout.of(lambda reply: f"<a>{reply}<e>\n").written(" x ") == " x <e>\n"
    assert ReplyLayout.of(lambda reply: f"<a> {reply.strip()}<e>").written(" x ") == "x<e>"


def test_the_example_shows_both_sides_with_what_carries_loss_marked(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHAT_TEMPLATE
    shown = mask_check.example("dpo", ROWS[1], tokenizer, in_colour=False)
    chosen, rejected = shown.split("\n\nrejected: ")
    assert chosen.startswith("chosen: ")
    for side, reply in ((chosen, ROWS[1]["chosen"]), (rejected, ROWS[1]["rejected"])):
        body = side.split("\n", 1)[1]
        assert "".join(re.findall(r"\[([^\]]*)\]", body)) == reply + "<|eot_id|>"
        plain = re.sub(r"\[[^\]]*\]", "", body).replace("|", "").replace("⏎", "")
        for message in ROWS[1]["prompt"]:
            assert message["content"].replace("|", "") in plain
    assert "rejected" not in mask_check.example("sft", ROWS[1], tokenizer, in_colour=False)
    coloured = mask_check.example("dpo", ROWS[1], tokenizer, in_colour=True)
    green = re.findall("\x1b\\[30;42m(.*?)\x1b\\[0m", coloured)
    assert "".join(green) == ROWS[1]["chosen"] + "<|eot_id|>" + ROWS[1]["rejected"] + "<|eot_id|>"


def test_tokens_that_only_together_make_a_character_are_shown_together() -> None:
    halves = {(1,): "�", (2,): "�", (1, 2): "é", (3,): "x"}
    shown = text(Marked([3, 1, 2, 3], [False, True, True, True]), lambda ids: halves[tuple(ids)], in_colour=False)
    assert shown == "x[é][x]"
