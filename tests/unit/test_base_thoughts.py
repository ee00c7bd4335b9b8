"""What a model says, without what it thought."""

from __future__ import annotations

import pytest

from rlhi_dagster.base.thoughts import begun, spoken


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>two and two</think>4", "4"),
        ("<think>\n\n</think>\n\n4\n\nIt is even.", "4\n\nIt is even."),
        ("\n<think>two\nand two</think>\n4\n", "4"),
        ("<THINK >a</ThInK >4", "4"),
        ("<thinking>a</thinking>4", "4"),
        ("<thought>a</thought>4", "4"),
        ("<seed:think>a</seed:think>4", "4"),
        ("[THINK]a[/THINK]4", "4"),
        ("◁think▷a◁/think▷4", "4"),
        ("<think>a</think><think>b</think>4", "4"),
        ("<think>a <think> in a <think></think>4", "4"),
        ("<think>a <think>b</think> c</think>4", "4"),
        ("Well.\n<think>hm</think>\n4", "Well.\n\n4"),
        ("Well. <think>hm</think>4", "Well. 4"),
        ("thoughts...</think>4", "4"),
        ("thoughts\n```\ncode\n```\n</think>\n\n4", "4"),
        ("<think>```\ncode that never ends</think>4", "4"),
        ("<think>`a` and `b`</think>`4`", "`4`"),
        ("<think>They ask about `</think>`.</think>4", "4"),
        ("<think>a</think>```json\n{}\n```", "```json\n{}\n```"),
        ("<think>cut off", ""),
        ("4.\n<think>cut off", "4."),
        ("<think></think>", ""),
        ("thoughts</think>", ""),
    ],
)
def test_thoughts_are_left_out(text: str, said: str) -> None:
    assert spoken(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  4\n",
        "I think 4.",
        "<b>4</b> [think](https://example.org)",
        "Models write `<think>` and `</think>` around thoughts.",
        "Write `<think>two and two</think>` and then 4.",
        "The tag <think> begins thoughts.",
        "So it looks:\n```\n<think>\ntwo and two\n</think>\n4\n```\nThat is all.\n",
    ],
)
def test_what_explains_thoughts_is_none(text: str) -> None:
    assert spoken(text) == text


def test_a_template_can_begin_thoughts() -> None:
    assert begun("<|im_start|>assistant\n<think>\n") == "<think>\n"
    assert begun("<|im_start|>assistant\n<think>\n\n</think>\n\n") == begun("<|im_start|>assistant\n") == ""
