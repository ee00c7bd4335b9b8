"""The profile as assets are given it: each body sees what it declares and nothing else.

What belongs here: the resource, and the view that refuses undeclared reads. What does not: settings themselves (``profiles``) and how
they are declared (``graph/declare.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType, MethodType
from typing import Any, cast

from pydantic import BaseModel

from rlhi_dagster.profiles import Profile

_FOR_THE_RECORD = frozenset({"name", "root", "source_facts"})
"""What of a profile says where things lie and come from, and bears on no result."""

_DECLARED_AS = {"project_recipes": "recipes"}
"""Settings that others are declared with: `recipes` stands for the recipes that both choose."""


class UndeclaredSettingError(AttributeError):
    """An asset reads a setting that it does not declare, so that it would not be stale when the setting has changed."""

    def __init__(self, asset: str, setting: str) -> None:
        """Name both."""
        super().__init__(f"{asset} reads the setting {setting} without declaring it: add it to the asset's `reads`")


@dataclass(frozen=True)
class Settings:
    """Resource: the profile of the code location.

    Attributes:
        profile: Every setting; for the body of an asset, those that it declares.
    """

    profile: Profile

    def seen_by(self, asset: str, reads: frozenset[str]) -> Settings:
        """The settings as the body of an asset sees them."""
        return replace(self, profile=cast("Profile", View(self.profile, asset, reads)))


class View:
    """A profile, or a section of one, that refuses to be read where nothing is declared.

    A setting is declared with all that is below it. Methods and properties run on the view, so that what they read counts too.
    """

    __slots__ = ("_asset", "_path", "_reads", "_real")

    def __init__(self, real: BaseModel, asset: str, reads: frozenset[str], path: str = "") -> None:
        """``path`` is that of the section, with a dot at its end."""
        self._real, self._asset, self._reads, self._path = real, asset, reads, path

    def __getattr__(self, name: str) -> Any:
        real = self._real
        if name not in type(real).model_fields:
            return self._computed(name)
        path = f"{self._path}{_DECLARED_AS.get(name, name)}"
        if name in _FOR_THE_RECORD or any(f"{path}.".startswith(f"{each}.") for each in self._reads):
            return getattr(real, name)
        if any(each.startswith(f"{path}.") for each in self._reads):
            return View(getattr(real, name), self._asset, self._reads, f"{path}.")
        raise UndeclaredSettingError(self._asset, path)

    def players(self, role: str) -> Any:
        """See ``Profile.players``: a role is declared as one thing, whichever sections say who plays it."""
        if f"models.{role}" not in self._reads:
            raise UndeclaredSettingError(self._asset, f"models.{role}")
        return cast("Profile", self._real).players(role)  # type: ignore[arg-type]

    def _computed(self, name: str) -> Any:
        if name in _FOR_THE_RECORD:
            return getattr(self._real, name)
        found = getattr(type(self._real), name)
        if isinstance(found, property):
            return cast("Callable[[Any], Any]", found.fget)(self)
        return MethodType(found, self) if isinstance(found, FunctionType) else found
