"""PRM800K: erroneous solutions out of solutions whose steps people rated.

What belongs here: reading records in either layout, and which of them are used. What does not: remarks on the wrong step
(``simulated_user``) and corrections (``reasoning``).

Two layouts, recognised by their fields, record by record:

- the original one (openai/prm800k): ``question`` and ``label``. Erroneous = ``finish_reason`` is ``found_error`` and the last labelled step
  is rated -1. Records of quality control and screening are not used. ``ground_truth_answer`` is the known answer.
- decoded steps: ``problem``, ``steps`` of ``text`` and ``rating``, ``final_answer``. Erroneous = some step is rated -1; the first of them
  is the last one shown. ``final_answer`` is what the solution itself ends in, right or wrong (docs/concepts/reasoning.md): no known answer.

No record ends a run: what cannot be read is counted. NaN is what some writers make of what is absent, and whole floats of integers.
"""

from __future__ import annotations

import glob
import gzip
import json
import math
import zlib
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
    """The JSON-lines files at ``location`` (a file, a folder or a glob; plain or compressed with gzip), sorted.

    Raises:
        ValueError: No file matches.
    """
    path = Path(location)
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if file.name.lower().endswith((".jsonl", ".jsonl.gz")))
    else:
        found = [location] if path.exists() else glob.glob(location)  # noqa: PTH207 - it may be absolute, which Path.glob refuses
        files = sorted(file for file in found if Path(file).is_file())
    if not files:
        raise ValueError(f"no PRM800K file at {location}: set `reasoning.prm800k` in the profile to the JSON-lines files of openai/prm800k")
    return files


def read_records(location: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Records of the files at ``location`` with where they stand; ``None`` for a line that is not a JSON object. Blank lines are none.

    Raises:
        ValueError: No file matches.
    """
    for file in find(location):
        for number, line in enumerate(_lines(file), 1):
            if line is None or line.strip():
                yield f"{Path(file).name}:{number}", _decoded_line(line)


def _lines(file: str) -> Iterator[bytes | None]:
    """The lines of a file; a last one of ``None`` stands for what cannot be decompressed. What follows a whole member is no damage."""
    with Path(file).open("rb") as raw:
        lines = gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(b"\x1f\x8b") else raw
        try:
            yield from lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if not str(error).startswith("Not a gzipped file"):
                yield None


def _decoded_line(line: bytes | None) -> dict[str, Any] | None:
    try:
        record = json.loads((line or b"").decode("utf-8-sig"))
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of thousands of digits, or brackets without end
        return None
    return record if isinstance(record, dict) else None


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
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
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
    if _flag(record.get("is_quality_control_question")) or _flag(record.get("is_initial_screening_question")):
        return Fate.QUALITY_CONTROL_OR_SCREENING
    if record["label"]["finish_reason"] != "found_error":
        return Fate.NO_ERROR_FOUND
    shown = [_shown(step) for step in record["label"]["steps"]]
    if not shown or shown[-1][1] != -1:
        return Fate.LAST_STEP_NOT_WRONG
    return _solution(record["question"]["problem"], [text for text, _ in shown], _answer(record["question"].get("ground_truth_answer")))


def _shown(step: Mapping[str, Any]) -> tuple[str, float | None]:
    """Text and rating of the completion that the labeller saw as this step: the one chosen, else the human's, else the first rated -1."""
    completions = step["completions"] or []
    place = _number(step["chosen_completion"])
    if place is not None:
        if place < 0 or place % 1:
            raise IndexError(f"{place} is no place among completions")
        chosen = completions[int(place)]
        return chosen["text"], _number(chosen["rating"])
    if step.get("human_completion"):
        return step["human_completion"]["text"], 1
    wrong = next((completion for completion in completions if _number(completion["rating"]) == -1), completions[0])
    return wrong["text"], _number(wrong["rating"])


def _number(given: Any) -> float | None:
    """A number; ``None`` if it is absent."""
    if not isinstance(given, int | float | None):
        raise TypeError(f"{type(given).__name__} is no number")
    return None if isinstance(given, float) and not math.isfinite(given) else given


def _flag(given: Any) -> bool:
    if given not in (None, False, True):
        raise ValueError("neither true nor false")
    return bool(given)


def _answer(given: Any) -> str | None:
    """The known answer as text."""
    if isinstance(given, str):
        return given
    number = _number(given)
    return None if number is None else str(int(number) if number % 1 == 0 else number)


def _decoded(record: Record) -> ErroneousSolution | Fate:
    steps = [(step["text"], _number(step["rating"])) for step in record["steps"]]
    wrong = next((position for position, (_, rating) in enumerate(steps) if rating == -1), None)
    if wrong is None:
        return Fate.NO_ERROR_FOUND
    texts = [text for text, _ in steps[: wrong + 1]]
    final = _answer(record.get("final_answer"))
    if final is not None and wrong == len(steps) - 1:
        # Decoding took the answer off the last step; in the original it stands there under this heading.
        texts[-1] = f"{texts[-1]}\n\n# Answer\n\n{final}".lstrip()
    return _solution(record["problem"], texts, None)


def _solution(problem: str, steps: Sequence[str], answer: str | None) -> ErroneousSolution | Fate:
    """A wrong step without text cannot be pointed at, and a blank answer is none."""
    problem, *said = map(_mended, [problem, *steps])
    if not problem.strip() or not said[-1].strip():
        return Fate.MALFORMED_RECORD
    return ErroneousSolution(problem, tuple(said), _mended(answer) if answer and answer.strip() else None)


def _mended(text: str) -> str:
    """The text with U+FFFD for halves of characters, which no table can hold."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
