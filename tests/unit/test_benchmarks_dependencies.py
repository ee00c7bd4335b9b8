"""The recorded table of licences: every package of the tested set, each with a licence."""

from __future__ import annotations

import re
from email.message import Message

import pytest

from benchmarks import dependencies
from rlhi_dagster.profiles import ROOT

RECORDED = (ROOT / "docs" / "results" / "dependencies.md").read_text(encoding="utf-8")


def test_every_package_of_the_tested_set_is_recorded_with_a_licence() -> None:
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (\S+) \| ([^|]+) \|", RECORDED, re.MULTILINE)
    found = {name: licence.strip() for name, _, licence in rows}
    assert set(dependencies.tested()) <= found.keys(), "run python benchmarks/dependencies.py > docs/results/dependencies.md"
    assert not [name for name, licence in found.items() if licence in ("", "none said")]


def test_what_is_installed_is_read_as_recorded() -> None:
    (found,) = dependencies.packages(["pydantic"])
    assert (found.name, found.licence) == ("pydantic", "MIT")
    assert [each.needed_by for each in dependencies.packages(["accelerate", "trl"])] == [("trl",), ()]
    assert dependencies.direct()["dagster"] == "always"
    assert dependencies.direct()["ruff"] == "development"


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "MIT"), ("License", "whole text")], "MIT"),
        ([("Classifier", "License :: OSI Approved :: Apache Software License")], "Apache-2.0"),
        ([("Classifier", "License :: OSI Approved"), ("License", "Apache 2.0\nand more")], "Apache-2.0"),
        ([("Classifier", "Topic :: Text")], ""),
    ],
)
def test_a_licence_is_told_by_the_best_that_metadata_say(fields: list[tuple[str, str]], licence: str) -> None:
    said = Message()
    for name, value in fields:
        said[name] = value
    assert dependencies.licence(said) == licence  # type: ignore[arg-type]
