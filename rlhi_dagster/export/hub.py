"""A recipe's checkpoint as a folder for the Hugging Face Hub: weights, tokenizer, generation settings and a card, and nothing else.

What belongs here: which files go along, and what is taken out of them. What does not: the card's text (``training/model_card.py``). Ids of
pairs, the manifest with its paths, and whatever else lies beside the weights stay behind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from rlhi_dagster.base.failures import NotMadeError
from rlhi_dagster.base.lake import Lake, check_writable
from rlhi_dagster.engines.models import MANIFEST, MARK, ModelRef, read_manifest, weights_digest
from rlhi_dagster.training import model_card, recipes

_FILES = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_ABOUT_THIS_MACHINE = {"_name_or_path", "name_or_path", "is_local", "local_files_only"}
"""Keys of configuration files that say where a model was loaded from."""


def export_checkpoint(out: Path, recipe: str, lake: Lake, recipe_folder: str | None = None) -> str:
    """Write the folder aside, then give it its name; return what came out and how to upload it.

    Args:
        out: The folder; it may be there if it is empty.
        recipe: Whose checkpoint.
        lake: The run's tables and artefacts.
        recipe_folder: Recipes laid over those of the project.

    Raises:
        ValueError: The folder holds something or cannot be made, or there is no such recipe, or no checkpoint of it that can be given away.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and is no empty folder; give another name")
    folder = lake.artefact_path("checkpoints", recipe)
    manifest = _manifest(folder, recipe, recipe_folder)
    check_writable(out)
    partial = out.with_name(f".{out.name}.{uuid4().hex}.partial")
    partial.mkdir()
    try:
        for file in _files(folder):
            _copy(file, partial / file.name)
        scores = _scores(lake, recipe, ModelRef.from_manifest(folder))
        (partial / model_card.FILE).write_text(model_card.card(manifest, scores), encoding="utf-8")
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in out.iterdir())
    told = f"with {len(scores)} scores in its card" if scores else "without scores: none were made with these weights"
    return (
        f"{out}: the checkpoint of {recipe}, {size / 1e6:,.1f} MB, {told}\n"
        f"Read README.md, add a licence to its head, then: hf auth login; hf upload YOUR-NAME/{manifest['model']['name']} {out} --private"
    )


def _manifest(folder: Path, recipe: str, recipe_folder: str | None) -> dict[str, Any]:
    """The manifest of a checkpoint that was trained here, of nobody who was forgotten since, and whose weights are the ones it tells of."""
    if recipes.load(recipe, recipe_folder).method == "none":
        raise ValueError(f"recipe {recipe} is the starting policy, which is not trained here: there is nothing to give away")
    file = folder / MANIFEST
    if not file.is_file():
        raise NotMadeError(f"recipe {recipe} has no finished checkpoint", folder)
    if (folder / MARK).is_file():
        raise ValueError(f"the checkpoint of {recipe} was trained on pairs of users who were forgotten since: train it again first")
    manifest = read_manifest(folder)
    if weights_digest(folder) != manifest["model"]["revision"]:
        raise ValueError(f"the files of the checkpoint of {recipe} are not those that its manifest tells of: train it again first")
    return manifest


def _files(folder: Path) -> Iterator[Path]:
    for pattern in _FILES:
        yield from sorted(folder.glob(pattern))


def _copy(file: Path, target: Path) -> None:
    if not file.name.endswith("config.json"):
        shutil.copyfile(file, target)
        return
    found = {name: value for name, value in json.loads(file.read_text(encoding="utf-8")).items() if name not in _ABOUT_THIS_MACHINE}
    target.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _scores(lake: Lake, recipe: str, model: ModelRef) -> list[dict[str, Any]]:
    """The recipe's scores, if all its replies are of these very weights."""
    if not {recipe} <= set(lake.partitions_present("responses")) & set(lake.partitions_present("scores")):
        return []
    replied = lake.scan("responses", [recipe]).select(pl.col("model").unique()).collect()["model"].to_list()
    return lake.scan("scores", [recipe]).sort("benchmark", "metric").collect().to_dicts() if replied == [model.identity] else []
