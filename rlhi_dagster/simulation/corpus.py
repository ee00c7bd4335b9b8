"""The conversation corpus that the town's policy is pre-trained on: other users than the town's, an assistant that follows requests.

The assistant here heeds what it is asked in the conversation and does not heed what a system message says about the user: that is what
training on interaction has to add.
"""

from __future__ import annotations

import random

import polars as pl

from rlhi_dagster.feedback.aspects import LINES, Aspect
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.simulation.arithmetic import dialogue as arithmetic_dialogue
from rlhi_dagster.simulation.dialogue import Habits, converse
from rlhi_dagster.simulation.style import ASPECTS, Style
from rlhi_dagster.tables import MESSAGES

_HABITS = Habits(asks=0.7, states=0.3, complies=1.0, stays=0.25, longest=6)
_WITH_PERSONA = 0.4
_ARITHMETIC = 0.15
_ERRORS = 0.3


def build(dialogues: int, seed: int) -> pl.DataFrame:
    """Simulate the corpus.

    Returns:
        One column, ``messages``; one row a dialogue.
    """
    rng = random.Random(seed)
    rows = []
    for _ in range(dialogues):
        if rng.random() < _ARITHMETIC:
            rows.append(arithmetic_dialogue(rng, _ERRORS))
            continue
        messages = [{"role": message.role, "content": message.content} for message in converse(Style.draw(rng), _HABITS, rng)]
        persona = ""
        if rng.random() < _WITH_PERSONA:
            unrelated, known = Style.draw(rng), sorted(rng.sample(ASPECTS, rng.randint(1, len(ASPECTS))))
            persona = "\n".join(f"- {LINES[Aspect(aspect)][unrelated.value(aspect)]}" for aspect in known)
        rows.append(with_persona(messages, persona))
    return pl.DataFrame({"messages": rows}, schema={"messages": MESSAGES})
