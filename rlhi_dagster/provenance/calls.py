"""The model calls behind a pair or an evaluated reply: which there are, what each did, and what the store says of it.

What belongs here: naming calls. What does not: reading the rows that name them (``trail``, ``evaluated``).

A row names its calls in one list; which of them wrote, repaired, judged or scored is told by how they were asked: a reward model's answer
is a reward, a choice is a judgement, and of two texts the second is the repair of the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from rlhi_dagster.provenance import Call
from rlhi_dagster.provenance.answers import Found, located
from rlhi_dagster.store.segments import ANSWERED_AT


class Deed(StrEnum):
    """What a model call did for a pair or an evaluated reply."""

    LABEL = "label of the follow-up"
    SPAN = "span of the feedback"
    NAME = "name of the group of complaints"
    REPLY = "reply, regenerated"
    APPLIES = "judgement: does the criticism fit the reply"
    PERSONA = "persona line"
    REWRITE = "rewrite"
    REPAIR = "repair of the rewrite"
    MEETS = "judgement: does the rewrite meet the feedback"
    SAMPLE = "sampled reply"
    REWARD = "reward"
    REMARK = "remark of the simulated user"
    CORRECTION = "corrected solution"
    EVALUATED = "reply to the evaluation item"
    OPPONENT = "reply that it was compared with"
    VERDICT = "judgement: which reply serves the user better"
    GONE = "rewrite, repair, judgement or reward"


Named = Iterable[tuple[str | None, Deed]]
"""Calls with what they did; ``Deed.GONE`` where a list names several."""


def calls(store: Path, named: Named) -> list[Call]:
    """Calls, each once, in the order in which they are named first.

    Args:
        store: Folder of the response store.
        named: Keys, and what they did; without key no model was asked. Those of ``Deed.GONE`` are told apart by their answers.
    """
    deeds: dict[str, Deed] = {}
    for key, did in named:
        if key:
            deeds.setdefault(key, did)
    found = located(store, deeds)
    is_written = False
    made = []
    for key, did in deeds.items():
        if did is Deed.GONE and key in found:
            did, is_written = _told(found[key], is_written)
        elif did is Deed.REWARD and key in found and found[key].kind == "chat":
            did = Deed.SAMPLE  # of a candidate that is not in its table any more
        made.append(_call(key, did, found))
    return made


def _told(found: Found, is_written: bool) -> tuple[Deed, bool]:
    """What a call of a rewrite's list did, and whether the rewrite is written after it."""
    if found.kind == "reward":
        return Deed.REWARD, is_written
    if "choices" in json.loads(found.row["settings"] or "{}"):
        return Deed.MEETS, is_written
    return (Deed.REPAIR if is_written else Deed.REWRITE), True


def _call(key: str, did: Deed, found: Mapping[str, Found]) -> Call:
    if key not in found:
        return Call(key, did.value)
    place, row = found[key], found[key].row
    return Call(
        call_id=key,
        did=did.value,
        kind=place.kind,
        model=place.folder.name,
        answered_at=row[ANSWERED_AT],
        prompt_tokens=row.get("prompt_tokens"),
        completion_tokens=row.get("completion_tokens"),
        settings=json.loads(row["settings"]) if row.get("settings") else None,
        error=row.get("error"),
    )
