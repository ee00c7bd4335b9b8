"""PRM800K: erroneous solutions out of solutions whose steps people rated.

What belongs here: reading records in either layout, and which of them are used. What does not: remarks on the wrong step
(``simulated_user``) and corrections (``reasoning``).

Two layouts, recognised by their fields, record by record:

- the original one (openai/prm800k): ``question`` and ``label``. Erroneous = ``finish_reason`` is ``found_error`` and the last labelled step
  is rated -1. Records of quality control and screening are not used. ``ground_truth_answer`` is the known answer.
- decoded steps: ``problem``, ``steps`` of ``text`` and ``rating``, ``final_answer``. Erroneous = some step is rated -1; the first of them
  is the last one shown. ``final_answer`` is what the solution itself ends in, right or wrong (docs/reasoning.md): no known answer.
"""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rlhi_dagster.engines.models import digest_of

Record = Mapping[str, Any]


class Fate(StrEnum):
    """What becomes of a record."""

    SELECTED = "selected"
    BEYOND_LIMIT = "beyond_limit"
    DUPLICATE = "duplicate"
    """The same problem and solution as an earlier record."""
    NO_ERROR_FOUND = "no_error_found"
    LAST_STEP_NOT_WRONG = "last_step_not_wrong"
    """`found_error` without a wrong step at the end."""
    QUALITY_CONTROL_OR_SCREENING = "quality_control_or_screening"
    MALFORMED_RECORD = "malformed_record"
    """Fields of neither layout, or of the wrong kind."""
    UNREADABLE_LINE = "unreadable_line"


@dataclass(frozen=True, slots=True)
class ErroneousSolution:
    """A solution up to and with its first wrong step.

    Attributes:
        problem: The problem.
        steps: The steps; the last one is the first that is wrong.
        answer: The known answer; ``None`` if there is none.
    """

    problem: str
    steps: tuple[str, ...]
    answer: str | None

    @property
    def text(self) -> str:
        """The solution as one text."""
        return "\n".join(self.steps)

    @property
    def error_id(self) -> str:
        """Digest of problem and solution."""
        return digest_of("reasoning", self.problem, self.text)


def find(location: str) -> list[str]:
    """The JSON-lines files at ``location``, sorted.

    Raises:
        ValueError: No file matches.
    """
    files = sorted(glob.glob(location))  # noqa: PTH207 - the location may be absolute, which Path.glob refuses
    if not files:
        raise ValueError(f"no PRM800K file at {location}: set `reasoning.prm800k` in the profile to the JSON-lines files of openai/prm800k")
    return files


def read_records(location: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Records of the files at ``location`` with where they stand; ``None`` for a line that is not a JSON object.

    Raises:
        ValueError: No file matches.
    """
    for file in find(location):
        with Path(file).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    record = None
                yield f"{Path(file).name}:{number}", record if isinstance(record, dict) else None


def erroneous_solutions(records: Iterator[tuple[str, Record | None]], most: int) -> tuple[list[ErroneousSolution], dict[str, int]]:
    """Select erroneous solutions.

    Args:
        records: As ``read_records`` gives them.
        most: At most this many, those with the smallest ids.

    Returns:
        Solutions sorted by id, and how many records met which ``Fate``; the fates add up to the records read.
    """
    fates: Counter[str] = Counter()
    found: dict[str, ErroneousSolution] = {}
    for _, record in records:
        try:
            read = _read(record)
        except (AttributeError, KeyError, TypeError, IndexError):
            read = Fate.MALFORMED_RECORD
        if isinstance(read, ErroneousSolution) and read.error_id in found:
            read = Fate.DUPLICATE
        if isinstance(read, ErroneousSolution):
            found[read.error_id] = read
        fates[read if isinstance(read, Fate) else Fate.SELECTED] += 1
    kept = [found[key] for key in sorted(found)[:most]]
    fates[Fate.SELECTED] -= len(found) - len(kept)
    fates[Fate.BEYOND_LIMIT] += len(found) - len(kept)
    return kept, {str(fate): count for fate, count in sorted((+fates).items())}


def _read(record: Record | None) -> ErroneousSolution | Fate:
    if record is None:
        return Fate.UNREADABLE_LINE
    if "label" in record:
        return _original(record)
    return _decoded(record)


def _original(record: Record) -> ErroneousSolution | Fate:
    if record.get("is_quality_control_question") or record.get("is_initial_screening_question"):
        return Fate.QUALITY_CONTROL_OR_SCREENING
    if record["label"]["finish_reason"] != "found_error":
        return Fate.NO_ERROR_FOUND
    shown = [_shown(step) for step in record["label"]["steps"]]
    if not shown or shown[-1][1] != -1:
        return Fate.LAST_STEP_NOT_WRONG
    answer = record["question"].get("ground_truth_answer")
    return _solution(record["question"]["problem"], [text for text, _ in shown], None if answer is None else str(answer))


def _shown(step: Mapping[str, Any]) -> tuple[str, int | None]:
    """Text and rating of the completion that the labeller saw as this step: the one chosen, else the human's, else the first rated -1."""
    completions = step["completions"] or []
    if step["chosen_completion"] is not None:
        chosen = completions[step["chosen_completion"]]
        return chosen["text"], chosen["rating"]
    if step.get("human_completion"):
        return step["human_completion"]["text"], 1
    wrong = next((completion for completion in completions if completion["rating"] == -1), completions[0])
    return wrong["text"], wrong["rating"]


def _decoded(record: Record) -> ErroneousSolution | Fate:
    steps = [(step["text"], step["rating"]) for step in record["steps"]]
    wrong = next((position for position, (_, rating) in enumerate(steps) if rating == -1), None)
    if wrong is None:
        return Fate.NO_ERROR_FOUND
    texts = [text for text, _ in steps[: wrong + 1]]
    if record.get("final_answer") is not None and wrong == len(steps) - 1:
        # Decoding took the answer off the last step; in the original it stands there under this heading.
        texts[-1] = f"{texts[-1]}\n\n# Answer\n\n{record['final_answer']}".lstrip()
    return _solution(record["problem"], texts, None)


def _solution(problem: str, steps: Sequence[str], answer: str | None) -> ErroneousSolution | Fate:
    """A wrong step without text cannot be pointed at, and a blank answer is none."""
    if not problem.strip() or not steps[-1].strip():
        return Fate.MALFORMED_RECORD
    return ErroneousSolution(problem, tuple(steps), answer if answer and answer.strip() else None)
