"""What an artefact's manifest says of how it was made beside its settings: code, machine and packages.

What belongs here: facts of this process. What does not: facts of the run's tables, which come with the job
(``training/origin.py``), and the manifest itself (``artefact.py``).
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rlhi_dagster.profiles import ROOT

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
_GIB = 2**30


def packages() -> dict[str, str]:
    """Versions of Python and of what trains."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def hardware() -> dict[str, Any]:
    """The device: ``kind`` (`cuda` or `cpu`), ``name``, ``count`` (on a CPU its threads in use) and ``memory_gib`` of each, or of all."""
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return {"kind": "cuda", "name": torch.cuda.get_device_name(), "count": torch.cuda.device_count(), "memory_gib": _gib(memory)}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"kind": "cpu", "name": _processor(), "count": torch.get_num_threads(), "memory_gib": _gib(memory)}


def code() -> dict[str, Any]:
    """The package's ``version``, and of a checkout its ``commit`` and whether the code ``is_modified`` since; both null of none."""
    known = {"version": version("rlhi-dagster"), "commit": None, "is_modified": None}
    found = _git("rev-parse", "--show-toplevel", "HEAD")
    if found is None or found.returncode:
        return known
    top, revision = found.stdout.split("\n")[:2]
    if Path(top) != ROOT:  # installed somewhere inside another repository
        return known
    changed = _git("diff-index", "--quiet", "HEAD", "--", "rlhi_dagster", "assets")
    return known | {"commit": revision, "is_modified": changed is None or changed.returncode != 0}


def _git(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None


def _processor() -> str:
    """The name of the processor as Linux tells it, or its architecture."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gib(size: int) -> float:
    return round(size / _GIB, 1)
