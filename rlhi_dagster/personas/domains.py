"""What users ask about: opening requests against described domains, without training.

What belongs here: the domains as data, and which of them a request belongs to. What does not: the sentence vectors (handed in) and what
is made of a user's requests together (``extractive``).

Zero-shot: a domain is a few descriptions in the words of requests. A request belongs to the domain that has the nearest description, if
that is near enough and clearly nearer than those of all other domains. The encoder reads English; to it, other languages look alike, so
only requests in English are told. How the limits were chosen and how often a domain is right: ``docs/concepts/personas.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rlhi_dagster.personas.languages import is_in_another_language

Embed = Callable[[Sequence[str]], np.ndarray]
"""Unit vectors of texts, in order: float32 ``[n, dimensions]``."""

MIN_COSINE = 0.28
"""Of a request and a description of its domain."""
MIN_MARGIN = 0.04
"""By which the cosine with the best description of another domain is smaller."""
MIN_WORDS = 3
"""Of fewer words the nearest domain says nothing."""
MIN_ASCII_FRACTION = 0.9
"""Of the letters of a request in English: names in Latin script make other languages look like it."""
_READ = 500

DOMAINS: dict[str, tuple[str, ...]] = {
    "programming": (
        "Write a Python script or function.",
        "Fix the error in my code.",
        "How do I set up this software library, server or database?",
        "HTML, CSS and JavaScript for a website.",
        "SQL query, Excel macro or shell command.",
        "A bot or an app in code.",
    ),
    "mathematics": (
        "Solve this equation and show the steps.",
        "A problem of algebra, calculus, probability or statistics.",
        "A word problem with numbers.",
    ),
    "science and engineering": (
        "Explain this concept of physics, chemistry or biology.",
        "How does this machine, circuit or material work?",
        "Astronomy, planets and distances in space.",
    ),
    "health": (
        "What are the symptoms and the treatment of this disease?",
        "Advice on diet, exercise, sleep and mental health.",
    ),
    "business and finance": (
        "Write a marketing plan or a product description.",
        "How do I start a company and find customers?",
        "Strategy, management and sales of a company.",
        "Investments, stocks, cryptocurrency, banks and taxes.",
    ),
    "law and politics": (
        "What does the law say about this?",
        "Government, elections, war and international politics.",
    ),
    "history": (
        "What happened in this historical period?",
        "Kings, empires and revolutions of the past.",
    ),
    "fiction": (
        "Write a story about two characters.",
        "Write a scene with dialogue, a screenplay or fan fiction.",
        "A fantasy role-playing scenario with characters and their backstory.",
    ),
    "poems and songs": (
        "Write a poem with rhymes.",
        "Write the lyrics of a song with verses and a chorus.",
    ),
    "image prompts": (
        "Write a prompt for an image generator such as Midjourney or Stable Diffusion.",
        "An image prompt.",
    ),
    "academic writing": (
        "Write an essay or a research paper with references.",
        "Polish this paragraph of an academic paper.",
        "Literature review, thesis and research methods.",
    ),
    "language and translation": (
        "Translate this into another language.",
        "Explain the grammar and vocabulary of a language.",
        "Rephrase this sentence and correct its grammar.",
    ),
    "job applications and letters": (
        "Write a cover letter or a CV for a job.",
        "Write a formal e-mail.",
        "Letter of recommendation and interview questions.",
    ),
    "games": (
        "Tips for a video game.",
        "Characters, weapons and levels of a computer game.",
    ),
    "films, television and music": (
        "Tell me about this film, TV show or series.",
        "Bands, singers, albums and actors.",
    ),
    "food and cooking": (
        "Give me a recipe for dinner.",
        "Ingredients, baking and restaurants.",
    ),
    "travel": (
        "Plan a trip with hotels and sights.",
        "What is there to see in this city?",
    ),
}
"""Name in a persona line, and descriptions in the words of requests."""


def domains_of(texts: Sequence[str], embed: Embed) -> list[str | None]:
    """The domain of each request, ``None`` where it cannot be told."""
    told = [text for text in dict.fromkeys(texts) if _can_be_told(text)]
    if not told:
        return [None] * len(texts)
    names, descriptions = zip(*((name, text) for name, described in DOMAINS.items() for text in described), strict=True)
    vectors = embed([*descriptions, *told])
    cosines = vectors[len(descriptions) :] @ vectors[: len(descriptions)].T
    owners = np.array([list(DOMAINS).index(name) for name in names])
    best = np.stack([cosines[:, owners == domain].max(axis=1) for domain in range(len(DOMAINS))], axis=1)
    second, first = np.sort(best, axis=1)[:, -2:].T
    is_clear = (first >= MIN_COSINE) & (first - second >= MIN_MARGIN)
    found = {text: list(DOMAINS)[domain] for text, domain, clear in zip(told, best.argmax(axis=1), is_clear, strict=True) if clear}
    return [found.get(text) for text in texts]


def _can_be_told(text: str) -> bool:
    """Whether the request is in English and has enough words."""
    letters = [letter for letter in text[:_READ] if letter.isalpha()]
    is_latin = sum(map(str.isascii, letters)) >= MIN_ASCII_FRACTION * len(letters)
    return len(text.split()) >= MIN_WORDS and is_latin and not is_in_another_language(text, "English")
