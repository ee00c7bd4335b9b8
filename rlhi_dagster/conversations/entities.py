"""Named entities by spaCy: which stretches of a text name a person, a place or whatever else a pipeline tells.

What belongs here: loading a pipeline and running it. What does not: what becomes of the stretches (``conversations.redaction``). spaCy
comes with the extra `entities`, pipelines are installed apart: ``python -m spacy download en_core_web_sm``. A pipeline is code and
weights of its maker; spaCy's own serialisation has no pickles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlhi_dagster.conversations.redaction import Entities, EntitySettings

_TEXTS_AT_ONCE = 64


def load(settings: EntitySettings) -> Entities:
    """Load the pipeline that the settings name.

    Returns:
        Texts to, of each, the (start, end, label) of the entities with a wanted label, in order and without overlap.

    Raises:
        ValueError: spaCy or the pipeline is not installed, or the pipeline knows none of the labels.
    """
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise ValueError("redaction.entities needs spaCy: pip install 'rlhi-dagster[entities]'") from error
    name = settings.pipeline
    if not Path(name).is_dir() and not spacy.util.is_package(name):
        raise ValueError(f"redaction.entities.pipeline {name} is neither installed nor a folder: python -m spacy download {name}")
    pipeline = spacy.load(name)
    known = {
        label for component in ("ner", "entity_ruler") if component in pipeline.pipe_names for label in pipeline.pipe_labels[component]
    }
    unknown = sorted(set(settings.labels) - known)
    if unknown:
        raise ValueError(
            f"redaction.entities.pipeline {name} does not tell {', '.join(unknown)}; it tells {', '.join(sorted(known)) or 'none'}"
        )
    # Longer texts than this are refused by default, for the parser's sake; messages have a limit of their own.
    pipeline.max_length = 10_000_000
    wanted = set(settings.labels)

    def entities(texts: Sequence[str]) -> list[list[tuple[int, int, str]]]:
        documents = pipeline.pipe(texts, batch_size=_TEXTS_AT_ONCE)
        return [[(each.start_char, each.end_char, each.label_) for each in found.ents if each.label_ in wanted] for found in documents]

    return entities
