"""The simulated user: a remark on the first wrong step of a solution, by a template or by a language model.

What belongs here: what the model is asked, and which of its remarks are taken. What does not: which solutions there are (``prm800k``).

A remark must name the wrong step by its number, and must not give the known answer away unless problem or solution say it already: a policy
that was told the answer learns nothing about solving. A remark that fails is an error row with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from rlhi_dagster.base.tables import REASONING_ERRORS
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest
from rlhi_dagster.engines.questions import Block, question, template
from rlhi_dagster.reasoning.prm800k import ErroneousSolution

TEMPLATE = "template"
"""What ``simulated_user`` says where no model speaks."""


def remark_requests(solutions: Sequence[ErroneousSolution]) -> list[ChatRequest]:
    """What the language model is asked about each solution: problem, numbered steps, and which of them is the first wrong one."""
    asked, shown = template("simulated_user"), map(_shown, solutions)
    return [ChatRequest(question(asked, each)) for each in shown]


def _shown(solution: ErroneousSolution) -> dict[str, str | list[Block]]:
    return {"problem": solution.problem, "steps": numbered(solution.steps), "wrong": str(len(solution.steps))}


def numbered(steps: Sequence[str]) -> list[Block]:
    """Steps with their numbers, as a model reads them."""
    return [Block("step", step, {"number": number}) for number, step in enumerate(steps, 1)]


def templated(solutions: Sequence[ErroneousSolution]) -> pl.DataFrame:
    """``REASONING_ERRORS`` in the words of a template, the only ones that the sample's policy knows."""
    return _errors(solutions, [(f"Step {len(solution.steps)} is wrong.", None, None) for solution in solutions], TEMPLATE)


def spoken(solutions: Sequence[ErroneousSolution], answers: Sequence[ChatAnswer], model: str) -> pl.DataFrame:
    """``REASONING_ERRORS`` in the words of a language model.

    Args:
        solutions: What ``remark_requests`` asked about.
        answers: Its answers, in order.
        model: Identity of the model.
    """
    said = []
    for solution, answer in zip(solutions, answers, strict=True):
        remark = (answer.text or "").strip()
        error = answer.failure or fault(solution, remark)
        said.append((None if error else remark, error, answer.call_id or None))
    return _errors(solutions, said, model)


def fault(solution: ErroneousSolution, remark: str) -> str | None:
    """Why a remark is not taken: `empty_remark`, `remark_misses_the_step` or `remark_reveals_the_answer`; ``None`` if it is."""
    if not remark:
        return "empty_remark"
    step = re.compile(rf"\bsteps?\s+(?:number\s+|no\.\s*|#\s*)?{len(solution.steps)}\b", re.IGNORECASE)
    if not step.search(remark):
        return "remark_misses_the_step"
    known = solution.answer
    is_told = known is not None and not any(_says(text, known) for text in (solution.problem, solution.text))
    return "remark_reveals_the_answer" if known and is_told and _says(step.sub("", remark), known) else None


def _says(text: str, answer: str) -> bool:
    """Whether ``answer`` stands in ``text``, not as part of a longer number or word; white space and ``$`` make no difference."""
    wanted = r"\s*".join(re.escape(part) for part in re.findall(r"\w+|[^\w\s]", _plain(answer)))
    return bool(wanted) and re.search(rf"(?<!\w)(?<!\d\.){wanted}(?!\w)(?!\.\d)", _plain(text)) is not None


def _plain(text: str) -> str:
    """Without LaTeX's small spaces and thousands' commas."""
    return re.sub(r"\\[,;! ]|(?<=\d)(?:\{,\}|,)(?=\d{3})", "", text.replace("$", " ")).lower()


def _errors(
    solutions: Sequence[ErroneousSolution], said: Sequence[tuple[str | None, str | None, str | None]], simulated_user: str
) -> pl.DataFrame:
    rows = [
        {
            "error_id": solution.error_id,
            "problem": solution.problem,
            "steps": list(solution.steps),
            "solution": solution.text,
            "first_error_step": len(solution.steps),
            "feedback": remark,
            "error": error,
            "answer": solution.answer,
            "simulated_user": simulated_user,
            "call_id": call_id,
        }
        for solution, (remark, error, call_id) in zip(solutions, said, strict=True)
    ]
    return REASONING_ERRORS.conform(pl.DataFrame(rows, schema=REASONING_ERRORS.schema))
