"""Every regular expression of the package, strings made to run it away, and how its time grows with their length.

What belongs here: finding the patterns (compiled ones in the modules' values, and those that a call names), making strings out of a
pattern's own parts, and measuring growth. What does not: what is asserted (``unit/test_patterns.py``).

Growth is told by CPU time of this thread, as a multiple of what a pattern without any repetition takes for the same text: linear work
keeps that multiple, quadratic work multiplies it by four where the text is four times as long.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import pkgutil
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import MappingProxyType, ModuleType
from typing import Any

import assets
import rlhi_dagster

ROOT = Path(__file__).parents[1]
EXTRAS = {"vllm"}
"""What a module may fail to import: an extra that is not installed here."""
SIZES = (24, 48, 250, 2_000)
"""Lengths that every string is tried at; the costliest few are then tried at those of ``LARGE``."""
LARGE = (25_000, 100_000)
COSTLIEST = 2
MOST = 400.0
"""Most that a text may cost, as a multiple of a bare search in it."""
_IN_PLACE = {"search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "split", "compile"}
_ANCHORED = {"match", "fullmatch"}
_REPEATS = (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT)
_OF_CATEGORY = {
    constants.CATEGORY_DIGIT: "1", constants.CATEGORY_SPACE: " \n", constants.CATEGORY_WORD: "a1_", constants.CATEGORY_NOT_DIGIT: "a ",
    constants.CATEGORY_NOT_SPACE: "a1.", constants.CATEGORY_NOT_WORD: " .",
}  # fmt: skip
MOST_ENDS = 6
MOST_STRINGS = 100
"""Of each pattern; of more every second one, every third, and so on."""
_BARE = re.compile("(?!.)[^\x00]")


@dataclass(frozen=True)
class Found:
    """A pattern.

    Attributes:
        place: Where it was found.
        pattern: It.
        is_anchored: Whether it is only ever tried at the beginning of a text.
        longest: Characters of the longest text that it is tried on; None where texts have no limit.
    """

    place: str
    pattern: re.Pattern[str]
    is_anchored: bool = False
    longest: int | None = None

    def run(self, text: str) -> object:
        """All work that the package could have with it: every match, or one at the beginning."""
        return self.pattern.fullmatch(text) or self.pattern.match(text) if self.is_anchored else sum(1 for _ in self.pattern.finditer(text))


@dataclass(frozen=True)
class Unseen:
    """A call that makes a pattern out of what only a run knows."""

    file: str
    function: str


def modules() -> Iterator[ModuleType]:
    """Every module of the package and of the assets that can have patterns."""
    for package in (rlhi_dagster, assets):
        yield package
        for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            found = importlib.util.find_spec(each.name)
            source = Path(found.origin).read_text(encoding="utf-8") if found and found.origin else ""
            if each.name.endswith("__main__") or not re.search(r"^import re\b", source, re.MULTILINE):
                continue
            try:
                yield importlib.import_module(each.name)
            except ModuleNotFoundError as missing:
                if (missing.name or "").split(".")[0] not in EXTRAS:
                    raise


@cache
def collected() -> tuple[list[Found], list[Unseen]]:
    """All patterns of the package, each once, and the calls whose patterns are known at run time only."""
    found: dict[tuple[str, int, bool], Found] = {}
    unseen: list[Unseen] = []
    for module in modules():
        anchored = _anchored_names(ast.parse(inspect.getsource(module)))
        named = [
            *((name, pattern, name in anchored) for name, value in vars(module).items() for pattern in _within(value, module.__name__)),
            *_called(module, unseen),
        ]
        for name, pattern, is_anchored in named:
            if isinstance(pattern.pattern, bytes):
                pattern = re.compile(pattern.pattern.decode("latin-1"), pattern.flags & ~re.ASCII | re.UNICODE)
            key = (pattern.pattern, pattern.flags, is_anchored)
            found.setdefault(key, Found(f"{module.__name__}.{name}", pattern, is_anchored))
    return list(found.values()), unseen


def _within(value: object, module: str, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    """Patterns in a value: itself, or in containers, data classes, classes and functions that the module defines."""
    if isinstance(value, re.Pattern):
        yield value
    elif depth > 6 or isinstance(value, str | bytes | int | float | ModuleType):
        return
    elif type(value) in (dict, MappingProxyType):
        yield from itertools.chain.from_iterable(_within(each, module, depth + 1) for each in [*value.keys(), *value.values()])
    elif type(value) in (list, tuple, set, frozenset):
        yield from itertools.chain.from_iterable(_within(each, module, depth + 1) for each in value)
    elif is_dataclass(value) and not isinstance(value, type) and type(value).__module__.startswith(("rlhi_dagster", "assets")):
        yield from itertools.chain.from_iterable(_within(getattr(value, each.name, None), module, depth + 1) for each in fields(value))
    elif getattr(value, "__module__", None) == module and isinstance(value, type):
        yield from itertools.chain.from_iterable(_within(each, module, depth + 1) for each in list(vars(value).values()))
    elif isinstance(getattr(value, "__self__", None), re.Pattern):
        yield value.__self__  # type: ignore[attr-defined]
    elif inspect.isfunction(value) and value.__module__ == module:
        closed = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        yield from _within([*closed, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()], module, depth + 1)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 -- looking is the question
    except ValueError:
        return False
    return True


def _anchored_names(tree: ast.AST) -> set[str]:
    """Names that are only used as ``NAME.match`` and ``NAME.fullmatch``: those look at one place of a text."""
    used: dict[str, set[str]] = {}
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            above = parents[node]
            used.setdefault(node.id, set()).add(above.attr if isinstance(above, ast.Attribute) else "")
    return {name for name, uses in used.items() if uses <= _ANCHORED}


def _called(module: ModuleType, unseen: list[Unseen]) -> Iterator[tuple[str, re.Pattern[Any], bool]]:
    """Patterns that a call like ``re.sub(PATTERN, ...)`` names, where they are a constant or a value of the module."""
    file = inspect.getsourcefile(module) or ""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        function = node.func if isinstance(node, ast.Call) else None
        is_re = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re"
        if not (is_re and isinstance(node, ast.Call) and isinstance(function, ast.Attribute) and function.attr in _IN_PLACE):
            continue
        within = [each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
        if function.attr == "compile" and not within:
            continue  # a value of the module
        first, flags = node.args[0], _flags(node)
        try:
            pattern = eval(compile(ast.Expression(first), file, "eval"), dict(vars(module)))
            assert isinstance(pattern, str | bytes | re.Pattern)
            made = pattern if isinstance(pattern, re.Pattern) else re.compile(pattern, flags)
        except Exception:
            unseen.append(Unseen(str(Path(file).relative_to(ROOT)), within[-1].name if within else ""))
        else:
            yield within[-1].name if within else "", made, function.attr in _ANCHORED


def _flags(call: ast.Call) -> int:
    text = " ".join(ast.unparse(each) for each in [*call.args[1:], *(keyword.value for keyword in call.keywords)])
    return sum({getattr(re, name).value for name in re.findall(r"re\.([A-Z]+)\b", text)})


# Strings out of a pattern's own parts.


@dataclass(frozen=True)
class _Way:
    """One way to match: the text, and of each repetition on it where it begins and what it repeats."""

    text: str
    pumps: tuple[tuple[int, str], ...] = ()

    def __add__(self, other: _Way) -> _Way:
        return _Way(self.text + other.text, (*self.pumps, *((at + len(self.text), unit) for at, unit in other.pumps)))


_MOST_WAYS = 40


def _ways(tree: Any) -> list[_Way]:
    """Ways to match a parsed pattern: every alternative, some characters of every class."""
    ways = [_Way("")]
    for operation, argument in tree:
        parts = _ways_of(operation, argument)
        if len(ways) * len(parts) > _MOST_WAYS:
            longest = max(len(ways), len(parts))
            ways = [ways[place % len(ways)] + parts[place % len(parts)] for place in range(min(longest, 4 * _MOST_WAYS))]
        else:
            ways = [one + other for one in ways for other in parts]
    return ways


def _ways_of(operation: Any, argument: Any) -> list[_Way]:
    if operation is constants.LITERAL:
        return [_Way(chr(argument))]
    if operation in {constants.NOT_LITERAL, constants.ANY}:
        return [_Way(sign) for sign in "a 1\n" if operation is constants.ANY or sign != chr(argument)][:2]
    if operation is constants.IN:
        return [_Way(sign) for sign in _members(argument)]
    if operation is constants.BRANCH:
        return [way for each in argument[1] for way in _ways(each)[: max(4, _MOST_WAYS // len(argument[1]))]]
    if operation is constants.SUBPATTERN:
        return _ways(argument[-1])
    if operation is constants.ATOMIC_GROUP:
        return _ways(argument)
    if operation in _REPEATS:
        least, most, body = argument
        ways = _ways(body)
        times = max(least, 1)
        made = [_Way(way.text * min(times, 40), (*way.pumps, *(((0, way.text),) if most > 3 and way.text else ()))) for way in ways]
        return [*made, _Way("")] if least == 0 else made
    if operation is constants.ASSERT and argument[0] > 0:
        return [_Way(""), *(_Way("", way.pumps) for way in _ways(argument[1]) if way.pumps)]
    return [_Way("")]


def _members(parts: list[Any]) -> list[str]:
    is_negated = parts[0][0] is constants.NEGATE
    signs: list[str] = []
    for operation, argument in parts[is_negated:]:
        if operation is constants.LITERAL:
            signs.append(chr(argument))
        elif operation is constants.RANGE:
            signs += [chr(argument[0]), chr((argument[0] + argument[1]) // 2)]
        elif operation is constants.CATEGORY:
            signs += _OF_CATEGORY.get(argument, "")
    if is_negated:
        inside = re.compile(_spelt(parts))
        signs = [sign for sign in 'a1 .-_\n"<{é\u4e00' if inside.match(sign)]
    return list(dict.fromkeys(signs))[:5] or ["a"]


def _spelt(parts: list[Any]) -> str:
    spelt = ""
    for operation, argument in parts[1:]:
        if operation is constants.LITERAL:
            spelt += re.escape(chr(argument))
        elif operation is constants.RANGE:
            spelt += f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}"
        elif operation is constants.CATEGORY:
            spelt += {"DIGIT": r"\d", "SPACE": r"\s", "WORD": r"\w", "NOT_DIGIT": r"\D", "NOT_SPACE": r"\S", "NOT_WORD": r"\W"}[
                str(argument).removeprefix("CATEGORY_")
            ]
    return f"[^{spelt}]"


def hostile(pattern: re.Pattern[str]) -> list[Callable[[int], str]]:
    """Makers of strings of a wished length that may run a pattern away, out of its literals and of what it repeats."""
    ways = _ways(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    ends = ["\x00", "\n", *dict.fromkeys(sign for sign in "#;)]}>\"'=@:.,!" if sign in pattern.pattern)][:MOST_ENDS]
    units: dict[tuple[str, str, str], None] = {}
    for way in ways:
        units[("", way.text, "")] = None
        units[("", way.text[:-1], "")] = None
        units[("", way.text + " ", "\x00")] = None
        for at, unit in way.pumps:
            units[("", unit, "")] = None
            units[("", unit, "\x00")] = None
            units.update(dict.fromkeys((way.text[:at], unit, end) for end in ends))
            units[("", way.text[:at] + unit, "")] = None
            units[("", way.text[:at] or unit, "\x00")] = None
        for (_, one), (_, other) in itertools.pairwise(way.pumps):
            units[("", one + other, "\x00")] = None
            units[(way.text[: way.pumps[0][0]], one + other, "\x00")] = None
    made = [unit for unit in units if unit[1]]
    return [_maker(*unit) for unit in made[:: -(-len(made) // MOST_STRINGS)]]


def _maker(before: str, unit: str, after: str) -> Callable[[int], str]:
    return lambda length: before + unit * max((length - len(before) - len(after)) // len(unit), 1) + after


# Growth.


@dataclass(frozen=True)
class Growth:
    """How the cost of a text grew, as a multiple of a bare search in it.

    Attributes:
        cost: At the greatest length tried.
        length: That length.
        growth: By how much the cost per character grew over the last fourfold length; 1 is linear, 4 quadratic.
        text: The beginning of the string.
    """

    cost: float
    length: int
    growth: float
    text: str
    most: float = MOST

    @property
    def runs_away(self) -> bool:
        """Whether it costs too much, or much while it grows faster than the text."""
        return self.cost > self.most or (self.growth > 2.5 and self.cost > self.most / 10)


def worst(
    work: Callable[[str], object], makers: Iterable[Callable[[int], str]], most: float = MOST, longest: int | None = None
) -> Growth | None:
    """The worst growth over some strings; stops at the first one that runs away, three times over, for a busy machine can look like it."""
    given = list(makers)
    for _ in range(3):
        found = _worst(work, given, most, longest)
        if found is None or not found.runs_away:
            break
    return found


def _worst(
    work: Callable[[str], object], makers: Iterable[Callable[[int], str]], most: float = MOST, longest: int | None = None
) -> Growth | None:
    sizes, large = ([size for size in each if size <= (longest or size)] for each in (SIZES, LARGE))
    found: list[tuple[float, Callable[[int], str]]] = []
    for make in makers:
        for length in sizes:
            cost = _cost(work, make(length), most)
            if cost > most:
                return Growth(cost, length, 99.0, make(60)[:60], most)
        found.append((cost, make))
    grown: list[Growth] = []
    for _, make in sorted(found, key=lambda each: -each[0])[:COSTLIEST]:
        costs = [_cost(work, make(sizes[-1]), most)]
        for length in large or sizes[-1:]:
            costs.append(_cost(work, make(length), most))
            grown.append(Growth(costs[-1], length, costs[-1] / max(costs[-2], 1e-9), make(60)[:60], most))
            if grown[-1].runs_away:
                return grown[-1]
    return max(grown, key=lambda each: (each.growth, each.cost), default=None)


def _cost(work: Callable[[str], object], text: str, most: float) -> float:
    """CPU seconds as a multiple of a bare search: of a few tries the smallest, one try if that is small enough already."""
    bare = max(min(_seconds(_BARE.search, text) for _ in range(3)), 2e-7 + 8e-9 * len(text))
    least = float("inf")
    for _ in range(4):
        least = min(least, _seconds(work, text) / bare)
        if least < most / 2 or least > 20 * most:
            break
    return least


def _seconds(work: Callable[[str], object], text: str) -> float:
    started = time.thread_time()
    work(text)
    return time.thread_time() - started
