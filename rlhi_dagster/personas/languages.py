"""Whether a text is in the language it should be in.

What belongs here: the languages that persona lines can be written in, and telling them apart. What does not: what follows from it.
"""

from __future__ import annotations

from rlhi_dagster.base.language_id import detected

CODES = {
    "Arabic": "ar",
    "Chinese": "zh",
    "Dutch": "nl",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Hindi": "hi",
    "Indonesian": "id",
    "Italian": "it",
    "Japanese": "ja",
    "Korean": "ko",
    "Polish": "pl",
    "Portuguese": "pt",
    "Russian": "ru",
    "Spanish": "es",
    "Turkish": "tr",
    "Ukrainian": "uk",
    "Vietnamese": "vi",
}
"""Languages that lines can be written in, with their ISO 639-1 codes."""

SURE = 0.7
"""Least probability to hold a text for one of another language: of the few words of a line, fastText's small model is often unsure."""
_READ = 500
"""Characters that are looked at; a language shows at once."""


def is_in_another_language(text: str, language: str) -> bool:
    """Whether fastText's small model, which comes with the package, is sure that the text is not in ``language``, a key of ``CODES``."""
    code, probability = detected(" ".join(text[:_READ].split()))
    return code != CODES[language] and probability >= SURE
