"""Modules that are loaded when something of them is first used, so that ``rlhi --help`` does not wait for what it does not need.

What belongs here: the standard library's own recipe for it (``importlib.util.LazyLoader``). What does not: use outside of the command line,
where an import inside a function says more plainly what is loaded when.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def later(name: str) -> ModuleType:
    """The module of this name; its code runs at the first look at one of its attributes."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no module named {name}")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
