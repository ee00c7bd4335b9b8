"""Broken text is told from sound text in any script, with a reason."""

from __future__ import annotations

import pytest

from rlhi_dagster.base.text_health import Flaw, flaw, flaws, loops


@pytest.mark.parametrize(
    ("prompt", "reply", "has_ended", "expected"),
    [
        ("How do I bake?", "Mix, then bake for ten minutes.", True, None),
        ("How do I bake?", "", True, Flaw.EMPTY),
        ("How do I bake?", " \n- ...", True, Flaw.EMPTY),
        ("How do I bake?", "Mix fl\ufffdour.", True, Flaw.NO_TEXT),
        ("How do I bake?", "Mix\x00flour.", True, Flaw.NO_TEXT),
        ("How do I bake?", "Mix, then\n\tbake.\r\n", True, None),
        ("How do I bake?", "Mix the flour and", False, Flaw.RAN_ON),
        ("How do I bake?", "Mix " * 9, True, Flaw.LOOP),
        ("How do I bake?", "Mix the flour well. " * 3, False, Flaw.LOOP),
        ("如何烤面包？", "先揉面，再烤。" * 3, True, Flaw.LOOP),
        ("如何烤面包？", "先揉面，再烤十分钟。", True, None),
        ("パンの焼き方は？", "粉を混ぜて焼きます。", True, None),
        ("Как испечь хлеб?", "Mix, then bake.", True, None),
        ("How do I bake?", "Смешайте муку и воду.", True, Flaw.OTHER_SCRIPT),
        ("How do I say hello in Russian?", "Say привет, it is easy to learn.", True, None),
        ("Translate привет", "Здравствуйте.", True, None),
    ],
)
def test_a_flaw_is_told_by_its_signs(prompt: str, reply: str, has_ended: bool, expected: Flaw | None) -> None:
    assert flaw(prompt, reply, has_ended=has_ended) == expected


def test_what_is_said_twice_is_no_loop() -> None:
    line = ["subject", "tennis", "court", "relation", "shows", "object"]
    assert not loops([*line, "man", *line, "racket", *line, "net"])
    assert not loops(line * 2)
    assert loops(line * 3)
    assert not loops(["no"] * 8)
    assert loops(["no"] * 9)


def test_flaws_are_counted_by_reason() -> None:
    replies = [("Hello", "Hi", True), ("Hello", "", True), ("Hello", "", False), ("Hello", "Hi and", False)]
    assert flaws(replies) == {"empty": 2, "ran_on": 1}
