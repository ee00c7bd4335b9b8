"""The conversation corpus that the town's policy is pre-trained on: other users than the town's, an assistant that follows requests.

The assistant here heeds what it is asked in the conversation, but what a system message says about the user only now and then: like a
general model before it has learnt from its users. Heeding it always is what training on interaction has to add.
"""

from __future__ import annotations

import random

import polars as pl

from rlhi_dagster.base.tables import MESSAGES
from rlhi_dagster.feedback import Aspect
from rlhi_dagster.feedback.aspects import LINES
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.simulation.town.arithmetic import dialogue as arithmetic_dialogue
from rlhi_dagster.simulation.town.dialogue import Habits, converse
from rlhi_dagster.simulation.town.style import ASPECTS, Style

_HABITS = Habits(asks=0.95, states=0.2, complies=1.0, praises=0.6, stays=0.4, longest=4)
_WITH_PERSONA = 0.7
_FEWEST_LINES = 2
_HEEDS_PERSONA = 0.25
_ARITHMETIC = 0.08
_ERRORS = 0.15


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
        preference, persona, opening = Style.draw(rng), "", None
        if rng.random() < _WITH_PERSONA:
            known = sorted(rng.sample(ASPECTS, rng.randint(_FEWEST_LINES, len(ASPECTS))))
            persona = "\n".join(f"- {LINES[Aspect(aspect)][preference.value(aspect)]}" for aspect in known)
            if rng.random() < _HEEDS_PERSONA:
                opening = Style.draw(rng)
                for aspect in known:
                    opening = opening.with_value(aspect, preference.value(aspect))
        messages = [{"role": said.role, "content": said.content} for said in converse(preference, _HABITS, rng, opening)]
        rows.append(with_persona(messages, persona))
    return pl.DataFrame({"messages": rows}, schema={"messages": MESSAGES})
