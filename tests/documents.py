"""The parts of the documents that are made: tables of layouts and of columns, scores from recorded files, and whole pages.

What belongs here: their text, and writing it. What does not: text by hand, and what stands on
whole pages (``tests.reference``). ``python -m tests.documents`` writes them anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhi_dagster.conversations.sources.columns import USUAL
from rlhi_dagster.conversations.sources.layouts import LAYOUTS
from tests.reference import PAGES

ROOT = Path(__file__).parents[1]


def layouts() -> str:
    """The layouts in the order in which they are tried."""
    return _table(("logs", "recognised by", "kind"), [(each.title, each.needs, f"`{each.kind}`") for each in LAYOUTS.values()])


def columns() -> str:
    """The usual names of columns, in the order in which they are looked for."""
    return _table(("field", "columns"), [(f"`{field}`", ", ".join(f"`{name}`" for name in names)) for field, names in USUAL.items()])


def classifier() -> str:
    """The scores of the classifier that comes with the project, beside baselines and a second labeller, from its card."""
    validated, test = _card()["cross_validation"], _card()["test"]
    measures = ("macro_f1", "reattempt_f1", "reattempt_average_precision", "accuracy")
    scored = [
        ("classifier, cross-validated", validated),
        ("most frequent label, as classifier, cross-validated", validated["majority_baseline"] | {"n": validated["n"]}),
        ("bag of words, same folds", validated["baselines"]["bag_of_words"]),
        ("embeddings, same folds", validated["baselines"]["embeddings"]),
        ("classifier, rows labelled twice, conversations apart", test["conversations_apart"]),
        ("second labeller, the same rows", test["second_labeller"]),
    ]
    head = ("labeller", "n", "macro-F1", "F1, re-attempt with feedback", "average precision, re-attempt with feedback", "accuracy")
    return _table(head, [(name, f"{found['n']:,}", *(_figure(found[measure]) for measure in measures)) for name, found in scored])


def cascade() -> str:
    """What asking a second labeller about the unsure follow-ups gives, by how sure the classifier has to be; from the same card."""
    return _table(
        ("`sure`", "share to the model", "accuracy", "F1, re-attempt with feedback"),
        [
            (f"{step['sure']:g}", f"{100 * step['share_to_model']:.0f} %", _figure(step["accuracy"]), _figure(step["reattempt_f1"]))
            for step in _card()["test"]["cascade"]["curve"]
        ],
    )


def _card() -> dict[str, Any]:
    card: dict[str, Any] = json.loads((ROOT / "rlhi_dagster" / "feedback" / "weights" / "card.json").read_text())["scores"]
    return card


def _figure(found: Any) -> str:
    return f"{found:.3f}" if isinstance(found, float) else f"{found['value']:.3f} [{found['ci_low']:.3f}, {found['ci_high']:.3f}]"


PARTS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "layouts": ("docs/reference/logs.md", layouts),
    "columns": ("docs/reference/logs.md", columns),
    "classifier": ("docs/results/labels.md", classifier),
    "cascade": ("docs/results/labels.md", cascade),
}
"""By the name between its marks: the document, and what makes the part."""


def renewed(name: str) -> str:
    """The document of a part, with the part as it should be."""
    file, make = PARTS[name]
    text, found = re.subn(
        rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda marks: f"{marks[1]}{make()}\n{marks[2]}", (ROOT / file).read_text(), flags=re.S
    )
    if found != 1:
        raise ValueError(f"{file} has {found} parts between <!-- {name} --> and <!-- /{name} -->, not one")
    return text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    drawn = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([drawn[0], f"|{'---|' * len(head)}", *drawn[1:]])


def main() -> None:
    """Write all parts, and the pages of the reference."""
    for name, (file, _) in PARTS.items():
        (ROOT / file).write_text(renewed(name))
    for file, make in PAGES.items():
        (ROOT / file).write_text(make())


if __name__ == "__main__":
    main()
