"""A question to a chat model: a template of ``prompts/`` with texts put in.

What belongs here: reading a template, putting texts in so that they can neither be taken for the template nor run past a length, and
what the answer to a choice says. What does not: what is asked (each question's own module) and the model's chat template (``prompts``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.resources import files

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Messages

Chat = Callable[[list[ChatRequest]], list[ChatAnswer]]
"""Answers requests in order, greedily."""


def template(name: str) -> str:
    """The text of ``prompts/<name>.md``."""
    return (files("rlhi_dagster") / "prompts" / f"{name}.md").read_text(encoding="utf-8")


def question(text: str, shown: Mapping[str, str], limits: Mapping[str, int]) -> Messages:
    """One user message: a template with texts in the place of ``{name}``.

    All texts are put in together, so that one which happens to contain ``{name}`` is shown as it is. The markers that templates put around
    a text, ``<name>`` and ``</name>``, get a space where a text contains them: no text can end its own block.

    Args:
        text: The template.
        shown: The text of each name.
        limits: Most characters of each name's text; see ``shortened``.

    Raises:
        KeyError: A limit is missing.
    """
    names = "|".join(map(re.escape, shown))
    marker = re.compile(rf"<(/?(?:{names})>)")
    texts = {name: marker.sub(r"< \1", shortened(said, limits[name])) for name, said in shown.items()}
    return [{"role": "user", "content": re.sub(rf"\{{({names})\}}", lambda match: texts[match.group(1)], text)}]


def shortened(text: str, limit: int) -> str:
    """``text``, or, if it is longer than ``limit`` characters, its beginning and end with a note of what is left out between them."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}\n[... {len(text) - limit:,} characters left out ...]\n{text[head - limit :]}"


def choice_probabilities(answer: ChatAnswer, choices: tuple[str, ...]) -> list[float]:
    """Of each choice; all on the chosen one where the engine does not tell them."""
    if answer.probabilities is not None:
        return answer.probabilities
    return [float(choice == answer.text) for choice in choices]
