"""Lines in another language are told, and languages that cannot be told are refused before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlhi_dagster.personas.languages import is_in_another_language
from rlhi_dagster.personas.settings import PersonaSettings


@pytest.mark.parametrize(
    ("text", "language", "is_another"),
    [
        ("Prefers short answers.", "English", False),
        ("Works on mods of Minecraft in Java.", "English", False),
        ("Prefiere respuestas cortas y en forma de lista.", "English", True),
        ("Prefiere respuestas cortas y en forma de lista.", "Spanish", False),
        ("Prefers short answers as a list.", "Spanish", True),
        ("喜欢简短的回答。", "English", True),
        ("", "English", False),
    ],
)
def test_another_language_is_told(text: str, language: str, is_another: bool) -> None:
    assert is_in_another_language(text, language) is is_another


def test_a_language_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(ValidationError, match="Klingon cannot be told from other languages; give one of Arabic"):
        PersonaSettings(language="Klingon")
