"""What users ask about: opening requests against described domains, without training.

What belongs here: the domains as data, and which of them a request belongs to. What does not: the sentence vectors (handed in) and what
is made of a user's requests together (``extractive``).

Zero-shot: a domain is a few descriptions in the words of requests; a request belongs to the domain whose nearest description has the
largest cosine, if that is at least ``THRESHOLD``. How the threshold was chosen and how often it is right: ``docs/personas.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Embed = Callable[[Sequence[str]], np.ndarray]
"""Unit vectors of texts, in order: float32 ``[n, dimensions]``."""

THRESHOLD = 0.3
"""Least cosine of a request and a description of its domain."""

DOMAINS: dict[str, tuple[str, ...]] = {
    "programming": (
        "Write a Python script or function.",
        "Fix the error in my code.",
        "How do I set up this software library, server or database?",
        "HTML, CSS and JavaScript for a website.",
    ),
    "mathematics": (
        "Solve this equation and show the steps.",
        "A problem of algebra, calculus, probability or statistics.",
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
    "business and marketing": (
        "Write a marketing plan or a product description.",
        "How do I start a company and find customers?",
        "Strategy, management and sales of a company.",
    ),
    "money": (
        "How should I invest my savings?",
        "Stocks, cryptocurrency, banks, taxes and loans.",
    ),
    "law and politics": (
        "What does the law say about this contract?",
        "Government, elections, war and international politics.",
    ),
    "history": (
        "What happened in this historical period?",
        "Kings, empires, wars and revolutions of the past.",
    ),
    "fiction": (
        "Write a story about two characters.",
        "Write a scene with dialogue, a screenplay or fan fiction.",
        "A fantasy role-playing scenario with characters and their backstory.",
    ),
    "poems and songs": (
        "Write a poem.",
        "Write the lyrics of a song.",
    ),
    "image prompts": (
        "Write a prompt for an image generator such as Midjourney or Stable Diffusion.",
        "Describe a picture in detail so that it can be drawn by an artificial intelligence.",
    ),
    "academic writing": (
        "Write an essay or a research paper with references.",
        "Improve this paragraph of an academic paper.",
        "Literature review, thesis and methodology.",
    ),
    "language and translation": (
        "Translate this text.",
        "Explain the grammar and vocabulary of a language.",
        "Correct the spelling and grammar of this text.",
    ),
    "job applications and letters": (
        "Write a cover letter or a CV for a job.",
        "Write a formal e-mail or letter.",
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
    """The domain of each request, ``None`` where none is near enough."""
    if not texts:
        return []
    names, descriptions = zip(*((name, text) for name, described in DOMAINS.items() for text in described), strict=True)
    vectors = embed([*descriptions, *texts])
    cosines = vectors[len(descriptions) :] @ vectors[: len(descriptions)].T
    nearest = cosines.argmax(axis=1)
    return [names[best] if row[best] >= THRESHOLD else None for row, best in zip(cosines, nearest, strict=True)]
