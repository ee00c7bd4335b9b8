"""Which settings an asset's body reads, told from its source and that of every project function that it names."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from rlhi_dagster import profiles
from rlhi_dagster.resources import Workers
from rlhi_dagster.settings import Settings

_PROJECT = ("assets.", "rlhi_dagster.", "tests.")
_SAYS_ONLY = "rlhi_dagster.training.origin"
"""What a manifest says of its pairs makes no difference to what is trained."""
_OF_OBJECTS = {"settings": Settings, "workers": Workers, "profile": profiles.Profile}
"""What these names hold, by the project's convention."""
_OF_RECIPES = {"load": {"recipes"}, "ranked": {"recipes_shown"}}
"""Functions of ``training.recipes``, and what is read through them."""
_ASKING = {"asking", "chat", "engine"}
"""Calls that name the role of a model."""

Body = Callable[..., Any]


def settings_read(body: Body) -> set[str]:
    """Dotted paths of the profile, ``engines.<role>`` and ``recipes``, as ``declare`` names them; `name` is a label and counts for none.

    Raises:
        AssertionError: Some function gives the profile a name that cannot be followed.
    """
    found, seen, waiting = set[str](), set[Body](), [body]
    while waiting:
        function = waiting.pop()
        if function not in seen:
            seen.add(function)
            read, named = _of_one(function)
            found |= read
            waiting += named
    return found - {"name"}


@functools.cache
def _of_one(function: Body) -> tuple[frozenset[str], tuple[Body, ...]]:
    """What a function itself reads, and the project's functions that it names."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    lost = list(_renamed(function, tree))
    assert not lost, f"{function.__qualname__} gives the profile another name: {lost}"
    recipes = _OF_RECIPES.get(function.__name__, set()) if function.__module__ == "rlhi_dagster.training.recipes" else set()
    read = _paths(tree, is_profile=_owner(function) is profiles.Profile) | _roles(tree) | recipes
    return frozenset(read), tuple(_named(function, tree))


def _paths(tree: ast.AST, *, is_profile: bool) -> set[str]:
    """Sections of the profile that the code names, as deep as it names them."""
    name = "self" if is_profile else r"profile|current\(\)"
    chains = re.findall(rf"\b(?:{name})\.([a-z_][\w.]*)", ast.unparse(tree))
    return {path for chain in chains if (path := ".".join(_fields(chain.split("."), profiles.Profile)))}


def _fields(names: list[str], model: Any) -> Iterator[str]:
    for name in names:
        if not (isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields) or name in ("engine", "engines"):
            return
        yield name
        model = model.model_fields[name].annotation


def _roles(tree: ast.AST) -> set[str]:
    """Roles of the models that the code asks; without one it is the policy."""
    found = set[str]()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        if called.rpartition(".")[2] in _ASKING:
            given = [part for argument in (*call.args, *(each.value for each in call.keywords)) for part in ast.walk(argument)]
            named = {part.value for part in given if isinstance(part, ast.Constant)} & set(profiles.ROLES)
            is_default = called == "workers.chat" and len(call.args) < 4 and "role" not in {each.arg for each in call.keywords}
            found |= {f"engines.{role}" for role in (named | ({"policy"} if is_default else set()))}
    return found


def _named(function: Body, tree: ast.AST) -> Iterator[Body]:
    """Functions and methods of the project that the code names."""
    for node in ast.walk(tree):
        target = _target(function, node)
        target = target.fget if isinstance(target, property) else inspect.unwrap(target) if callable(target) else target
        if inspect.isfunction(target) and target.__module__.startswith(_PROJECT) and target.__module__ != _SAYS_ONLY:
            yield target


def _renamed(function: Body, tree: ast.AST) -> Iterator[str]:
    """Where the whole profile gets a name that this module does not follow."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            name, value = node.targets[0], node.value
            pairs = (
                zip(name.elts, value.elts, strict=True) if isinstance(name, ast.Tuple) and isinstance(value, ast.Tuple) else [(name, value)]
            )
            yield from (ast.unparse(node) for name, value in pairs if _is_profile(value) and ast.unparse(name) != "profile")
        elif isinstance(node, ast.Call) and any(map(_is_profile, node.args)):
            called = _target(function, node.func)
            if getattr(called, "__module__", _PROJECT[0]).startswith(_PROJECT):
                names = list(inspect.signature(called).parameters) if called else []
                where = [index for index, value in enumerate(node.args) if _is_profile(value)]
                yield from (ast.unparse(node) for index in where if names[index : index + 1] != ["profile"])


def _is_profile(node: ast.AST) -> bool:
    return ast.unparse(node) in ("profile", "settings.profile", "profiles.current()")


def _target(function: Body, node: ast.AST) -> Any:
    """What a name or an attribute stands for in a function, as far as it is known without running it."""
    if isinstance(node, ast.Name):
        return function.__globals__.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    base = node.value
    if isinstance(base, ast.Attribute):
        holder = _OF_OBJECTS.get(base.attr) or _target(function, base)
    elif isinstance(base, ast.Name):
        holder = _owner(function) if base.id == "self" else _OF_OBJECTS.get(base.id) or function.__globals__.get(base.id)
    else:
        return None
    return inspect.getattr_static(holder, node.attr, None)


def _owner(function: Body) -> Any:
    """The class of a method."""
    return function.__globals__.get(function.__qualname__.partition(".")[0]) if "." in function.__qualname__ else None
