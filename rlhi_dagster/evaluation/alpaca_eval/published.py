"""What was published of AlpacaEval 2.0: a folder of files, of which each is used if it is there.

What belongs here: finding and reading the files. What does not: what is computed from them. Nothing is downloaded, and nothing of them is
in this
project: the data set's licence is CC-BY-NC-4.0.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from rlhi_dagster.evaluation.alpaca_eval import BASELINE, INSTRUCTIONS, JUDGE
from rlhi_dagster.evaluation.alpaca_eval.annotations import read
from rlhi_dagster.evaluation.alpaca_eval.gamed import published, stand_in
from rlhi_dagster.evaluation.alpaca_eval.length_control import Floats, Gamed, Weights, design

DIFFICULTY, GAMED, ANNOTATIONS = "instruction_difficulty.csv", "df_gamed.csv", "annotations.parquet"
WEIGHTS = ("glm_weights.csv", f"baseline_{BASELINE}.csv")
LEADERBOARD = ("leaderboard.csv", f"{JUDGE}_leaderboard.csv")
OUTPUTS = (f"{BASELINE}.json", "alpaca_eval_gpt4_baseline.json")
"""Names of files: ours first, then those of the data set and of the package ``alpaca_eval``."""


@dataclass(frozen=True)
class Published:
    """The published files in a folder; each is read when it is asked for.

    Attributes:
        folder: Where they lie; ``None`` if nothing is at hand.
        left_out: A model that the stand-in for the missing table shall not learn from.
    """

    folder: Path | None
    left_out: str | None = field(default=None)

    @cached_property
    def difficulties(self) -> Floats | None:
        """Of each instruction, in the order of AlpacaEval.

        Raises:
            ValueError: There are not as many as instructions.
        """
        if found := self._file(DIFFICULTY):
            difficulties = pl.read_csv(found).sort("index")["instruction_difficulty"].to_numpy()
        elif found := self._file(GAMED):
            difficulties = published(found)[1]
        else:
            return None
        if len(difficulties) != INSTRUCTIONS:
            raise ValueError(f"{found}: {len(difficulties)} difficulties, but AlpacaEval has {INSTRUCTIONS} instructions")
        return difficulties

    @cached_property
    def gamed(self) -> Gamed | None:
        """The published table of the baseline's versions, or a stand-in; ``None`` where neither can be had."""
        if found := self._file(GAMED):
            return published(found)[0]
        annotations = self._file(ANNOTATIONS)
        if annotations is None or self.difficulties is None or not self.weights:
            return None
        known = [each for each in read(annotations) if each.model in self.weights and each.model not in (BASELINE, self.left_out)]
        rows = [(design(each.rows, self.difficulties[: len(each.rows)]), self.weights[each.model]) for each in known]
        return stand_in(rows, self.difficulties)

    @cached_property
    def weights(self) -> Mapping[str, Weights]:
        """The published weights by model."""
        found = self._file(*WEIGHTS)
        return {} if found is None else {row[0]: Weights(*row[1:4]) for row in pl.read_csv(found).rows()}

    @cached_property
    def leaderboard(self) -> Mapping[str, Mapping[str, Any]]:
        """Rows of the leaderboard by model."""
        found = self._file(*LEADERBOARD)
        return {} if found is None else {next(iter(row.values())): row for row in pl.read_csv(found).to_dicts()}

    @cached_property
    def outputs(self) -> list[dict[str, Any]] | None:
        """The baseline's outputs in the order of AlpacaEval: `instruction`, `output`, `dataset`, `generator`."""
        found = self._file(*(f"{folder}{name}{end}" for folder in ("", "model_outputs/") for name in OUTPUTS for end in ("", ".gz")))
        if found is None:
            return None
        with gzip.open(found, "rt", encoding="utf-8") if found.suffix == ".gz" else found.open(encoding="utf-8") as file:
            outputs: list[dict[str, Any]] = json.load(file)
        if missing := [name for name in ("instruction", "output") if name not in outputs[0]]:
            raise ValueError(f"{found}: outputs without {', '.join(missing)}")
        return outputs

    @property
    def instructions(self) -> list[str] | None:
        """The instructions in order, if the baseline's outputs are there."""
        return None if self.outputs is None else [row["instruction"] for row in self.outputs]

    def difficulties_of(self, count: int) -> Floats | None:
        """Of ``count`` rows as published: the n-th row gets the n-th instruction's; ``None`` without difficulties.

        Raises:
            ValueError: There are more rows than instructions.
        """
        if count > INSTRUCTIONS:
            raise ValueError(f"{count} annotations of one model, but AlpacaEval has {INSTRUCTIONS} instructions")
        return None if self.difficulties is None else self.difficulties[:count]

    def _file(self, *names: str) -> Path | None:
        if self.folder is None:
            return None
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder}: no such folder with the published files of AlpacaEval")
        return next((self.folder / name for name in names if (self.folder / name).is_file()), None)
