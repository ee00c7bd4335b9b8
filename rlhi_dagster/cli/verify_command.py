"""``rlhi verify``: whether what the outputs hold is what was written.

What belongs here: which parts of the outputs are looked at, and the command's words. What does not: how damage is noticed
(``base/seals.py``, ``engines/models.py``, ``store/integrity.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rlhi_dagster import profiles
from rlhi_dagster.base.failures import DamagedError, message
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.cli import store_command
from rlhi_dagster.cli.dagster_home import damaged_event_logs
from rlhi_dagster.engines.models import MANIFEST, read_manifest, weights_digest
from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
from rlhi_dagster.store.compaction import folders
from rlhi_dagster.training.artefacts import read_pairs


class DamagedOutputsError(ValueError):
    """``rlhi verify`` found damage; the message lists it."""


def add_parser(commands: Any) -> None:
    """Add ``verify`` to the parsers of ``rlhi``."""
    commands.add_parser(
        "verify",
        help="read all outputs and compare them with their checksums; exit code 1 if something is damaged",
        description="Compare every table, manifest, set of weights and stored answer of the outputs with the checksum that it was written "
        "with, and look through Dagster's event log. Says of what is damaged which command makes it again.",
    )


def run(say: Callable[[str], None]) -> str:
    """Look at all outputs of the profile in use; return what came out.

    Args:
        say: Where lines of progress go.

    Raises:
        DamagedOutputsError: Something is damaged; the message is for the terminal.
    """
    root = profiles.current().root
    if not root.is_dir():
        raise ValueError(f"there are no outputs at {root}: RLHI_DATA, RLHI_PROFILE and RLHI_SOURCE say which are meant")
    lake = Lake(root=str(root / "lake"))
    problems = [message(error) for error in (*lake.damaged(), *_artefacts(root))]
    problems += damaged_event_logs(root / "dagster_home", is_thorough=True)
    try:
        sound = [store_command.verified(root / "responses", partial(store_command.progress, say))] if _has_answers(root) else []
    except store_command.UnsoundStoreError as error:
        sound, problems = [], [*problems, str(error)]
    if problems:
        raise DamagedOutputsError("\n".join([f"damaged, of {root}:", *problems]))
    return "\n".join([f"{root}: tables, artefacts and event log are as they were written", *sound])


def _has_answers(root: Path) -> bool:
    return any(folders(root / "responses"))


def _artefacts(root: Path) -> Iterator[DamagedError]:
    for file in sorted(root.glob(f"lake/**/{MANIFEST}")):
        if not any(part.startswith(".") for part in file.relative_to(root).parts):
            yield from _artefact(file.parent)
    classifier = root / "lake" / "feedback_classifier"
    if classifier.is_dir():
        try:
            FeedbackClassifier.load(classifier)
        except DamagedError as error:
            yield error


def _artefact(folder: Path) -> Iterator[DamagedError]:
    try:
        model = read_manifest(folder).get("model") or {}
        read_pairs(folder)
    except DamagedError as error:
        yield error
        return
    if model.get("path") == "." and weights_digest(folder) != model["revision"]:
        yield DamagedError(f"{folder} is damaged: its weights are others than its manifest tells of", folder)
