"""Every package of the tested set with its licence, and who needs it: what somebody must know before passing the project on.

What belongs here: reading the metadata of what is installed, and the table. What does not: choosing packages (``pyproject.toml``) and
known vulnerabilities, for which a list on the network must be asked. The results are recorded in ``docs/results/dependencies.md``.
Run: ``python benchmarks/dependencies.py > docs/results/dependencies.md``.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlhi_dagster.base.escapes import markdown, markdown_table
from rlhi_dagster.profiles import ROOT

COPYLEFT = re.compile(r"\bA?GPL|\bLGPL|\bMPL|\bEPL|\bEUPL|Mozilla|GNU", re.IGNORECASE)
"""Licences that ask something of who passes a changed package on."""
SPDX = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "BSD 3-Clause OR Apache-2.0": "BSD-3-Clause OR Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "ISC License (ISCL)": "ISC",
}
"""What packages without a licence expression call theirs."""


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package.

    Attributes:
        name: Its normalised name.
        version: Its version.
        licence: As its metadata says; empty if they do not.
        needed_by: Other packages of the set that require it, sorted.
    """

    name: str
    version: str
    licence: str
    needed_by: tuple[str, ...]


def licence(found: metadata.PackageMetadata) -> str:
    """The licence expression, or the classifiers, or the first line of the field that some use for the whole text."""
    said = _field(found, "License-Expression")
    if not said:
        classified = [each.rpartition(" :: ")[2] for each in found.get_all("Classifier") or [] if each.startswith("License ::")]
        said = "; ".join(SPDX.get(each, each) for each in classified if each != "OSI Approved")
    first = next(iter(_field(found, "License").strip().splitlines()), "")
    return said or SPDX.get(first, first)


def _field(found: metadata.PackageMetadata, name: str) -> str:
    return str(next(iter(found.get_all(name) or []), ""))


def tested() -> dict[str, str]:
    """Versions of the tested set by name."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(each.name): next(iter(each.specifier)).version for each in pinned}


def packages(names: Iterable[str]) -> list[Package]:
    """Packages of these names that are installed, sorted."""
    wanted = set(names)
    installed = {canonicalize_name(each.metadata["Name"]): each for each in metadata.distributions()}
    needing: dict[str, set[str]] = {}
    for name in wanted & installed.keys():
        for requirement in map(Requirement, installed[name].requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needing.setdefault(canonicalize_name(requirement.name), set()).add(name)
    return [
        Package(name, installed[name].version, licence(installed[name].metadata), tuple(sorted(needing.get(name, ()))))
        for name in sorted(wanted & installed.keys())
    ]


def direct() -> dict[str, str]:
    """What the project itself requires, and for what: always, an extra, or development."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    groups = [("development", project["dependency-groups"]["dev"]), *((f"extra {name}", given) for name, given in extras.items())]
    groups.append(("always", project["project"]["dependencies"]))
    return {canonicalize_name(Requirement(each).name): why for why, given in groups for each in given}


def page() -> str:
    """The results page."""
    versions, required = tested(), direct()
    found = packages(versions)
    counts = Counter(each.licence or "none said" for each in found)
    asking = [each for each in found if COPYLEFT.search(each.licence)]
    rows = [
        (each.name, each.version, markdown(each.licence or "none said"), required.get(each.name, ""), ", ".join(each.needed_by[:3]))
        for each in found
    ]
    missing = sorted(versions.keys() - {each.name for each in found})
    return "\n\n".join(
        [
            "# Dependencies and their licences",
            f"`python benchmarks/dependencies.py > docs/results/dependencies.md`: the {len(versions)} packages of the tested set "
            "(`.ci/constraints.txt`), as their own metadata describe them where they are installed. A package of the set can carry code of "
            "others under licences of their own; its metadata need not say so.",
            *([f"Not installed where this was made: {', '.join(missing)}."] if missing else []),
            "## Licences",
            markdown_table(["licence", "packages"], [(markdown(name), str(n)) for name, n in sorted(counts.items(), key=_by_count)]),
            f"{len(asking)} of them ask something of who passes a changed copy of the package on: "
            f"{', '.join(f'{each.name} ({markdown(each.licence)})' for each in asking) or 'none'}.",
            "## Known vulnerabilities",
            "None were looked up here: a scanner asks a list on the network which versions are known to be vulnerable, and this page is "
            "made without one. Where there is a network:",
            "```sh\npython -m pip install pip-audit\npip-audit --requirement .ci/constraints.txt --no-deps\n```",
            "## Packages",
            markdown_table(["package", "version", "licence", "required", "needed by"], rows),
        ]
    )


def _by_count(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


if __name__ == "__main__":
    print(page())
