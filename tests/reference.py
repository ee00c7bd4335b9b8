"""The pages of the reference that are made from the code: commands, settings, tables, assets and checks, metadata keys.

What belongs here: their text. What does not: pages by hand, and writing them (``tests.documents``).
"""

from __future__ import annotations

import argparse
import ast
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import yaml
from pydantic import BaseModel

from rlhi_dagster import definitions, profiles
from rlhi_dagster.base.tables import TABLES, type_name
from rlhi_dagster.cli.commands import COMMANDS
from rlhi_dagster.cli.main import parser
from rlhi_dagster.training import recipes

ROOT = Path(__file__).parents[1]
_MADE = "<!-- Generated from the code by `make docs`. Do not edit. -->"
SHOWN = ("sample", "laptop", "paper")
"""Profiles whose values stand beside each other."""


def page(title: str, told: str, lines: Iterator[str] | list[str]) -> str:
    """A whole page."""
    wrapped = textwrap.fill(told, 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join([_MADE, "", f"# {title}", "", wrapped, "", *lines]).rstrip() + "\n"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [head, *(tuple(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows)]
    drawn = [f"| {' | '.join(line)} |" for line in lines]
    return [drawn[0], f"|{'---|' * len(head)}", *drawn[1:]]


# Commands


def cli() -> str:
    """Every command with its arguments."""
    whole = parser()
    commands = next(action for action in whole._actions if isinstance(action, argparse._SubParsersAction)).choices
    told = (
        "`rlhi` is installed beside Python: `.venv/bin/rlhi`. `rlhi --help` lists the commands, and `rlhi COMMAND --help` "
        "shows what stands here. The variables RLHI_PROFILE, RLHI_SOURCE, RLHI_SALT and RLHI_DATA choose the run that a "
        "command is about ([variables](../how-to/profiles.md#variables-and-where-outputs-lie))."
    )
    overview = table(("command", "what it does"), [(f"[`{name}`](#rlhi-{name})", command.told) for name, command in COMMANDS.items()])
    return page(
        "Commands", told, [*overview, "", *_COMPLETION, *(line for name in COMMANDS for line in _command(f"rlhi {name}", commands[name]))]
    )


_COMPLETION = [
    "## Completion in the shell",
    "",
    "[shtab](https://github.com/tqdm/shtab) writes a completion script from the parser of `rlhi`, once: pressing Tab starts no Python.",
    "",
    "```bash",
    ".venv/bin/python -m pip install shtab",
    "mkdir -p ~/.local/share/bash-completion/completions",
    ".venv/bin/shtab --shell=bash -u --prog rlhi rlhi_dagster.cli.main.parser > ~/.local/share/bash-completion/completions/rlhi",
    "```",
    "",
    "`--shell=zsh` writes one for zsh: put it as `_rlhi` into a folder of `$fpath`. Write it anew after an update.",
    "",
]


def _command(name: str, made: argparse.ArgumentParser, depth: int = 2) -> Iterator[str]:
    yield from [f"{'#' * depth} {name}", "", _prose(made.description or "")]
    epilog, _, example = (made.epilog or "").rpartition("Example: ")
    yield from (["", _prose(epilog)] if epilog else [])
    yield from (["", "```sh", example, "```"] if example else [])
    rows = [(_written(action), _prose(action.help or "")) for action in made._actions if _is_argument(action)]
    yield from (["", *table(("argument", "meaning"), rows)] if rows else [])
    yield ""
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for part, below in action.choices.items():
                below.description = below.description or helps.get(part)
                yield from _command(f"{name} {part}", below, depth + 1)


def _is_argument(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def _written(action: argparse.Action) -> str:
    metavar = action.metavar if isinstance(action.metavar, str) else ("|".join(map(str, action.choices)) if action.choices else None)
    if not action.option_strings:
        return f"`{metavar or action.dest}`{' …' if action.nargs in ('*', '+') else ''}"
    value = "" if action.nargs == 0 else f" {metavar or action.dest.upper()}"
    return f"`{action.option_strings[-1]}{value}`"


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;").replace("%(default)s", "the default")


# Settings


def profile() -> str:
    """Every setting with its meaning, and what the profiles say."""
    shown = {name: profiles.load(name, environment={"RLHI_SALT": "x", "RLHI_DATA": "data"}) for name in SHOWN}
    told = (
        "Every setting of a profile, with its meaning and what the profiles say that come with the project. `–` stands "
        "where a profile has no such setting, often because a section is left out or of another kind. `rlhi profile NAME` "
        "shows the same for one profile, with the file that says it. How a profile is written is in "
        "[profiles](../how-to/profiles.md)."
    )
    lines: list[str] = []
    for name, field in profiles.Profile.model_fields.items():
        parts = [getattr(each, name) for each in shown.values()]
        meaning = " ".join((field.description or "").split())
        if any(isinstance(part, BaseModel) for part in parts):
            lines += [f"## {name}", "", meaning, ""]
            rows = dict(_settings({each: part for each, part in zip(shown, parts, strict=True) if isinstance(part, BaseModel)}, name))
            lines += [*table(("setting", *SHOWN, "meaning"), [(f"`{key}`", *values) for key, values in rows.items()]), ""]
    first = [
        (f"`{name}`", *(_value(each, name) for each in shown.values()), field.description or "")
        for name, field in profiles.Profile.model_fields.items()
        if not any(isinstance(getattr(each, name), BaseModel) for each in shown.values())
    ]
    arms = [
        (f"`{name}`", arm.role, arm.method, ", ".join(arm.sources), ", ".join(arm.against), arm.description)
        for name, arm in recipes.load_all(None).items()
    ]
    ours = table(("recipe", "role", "method", "trains on", "against", "what it is"), arms)
    return page(
        "Settings",
        told,
        ["## Settings of the whole run", "", *table(("setting", *SHOWN, "meaning"), first), "", *lines, "## Recipes", "", *ours],
    )


def _settings(models: Mapping[str, BaseModel], path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of a section: each setting with the profiles' values and what it means."""
    fields = {name: field for model in models.values() for name, field in type(model).model_fields.items()}
    for name, field in fields.items():
        values = {each: getattr(model, name, None) for each, model in models.items()}
        below = {each: value for each, value in values.items() if isinstance(value, BaseModel)}
        if below:
            yield from _settings(below, f"{path}.{name}")
        else:
            found = (_value(models[each], name) if each in models and hasattr(models[each], name) else "–" for each in SHOWN)
            yield f"{path}.{name}", (*found, field.description or "")


def _value(model: BaseModel, name: str) -> str:
    """A setting as a profile would write it."""
    dumped = model.model_dump(mode="json", include={name}, exclude_none=True).get(name)
    if name == "recipes" or dumped is None:
        return "–"
    text = yaml.safe_dump(dumped, default_flow_style=True, width=10**9, allow_unicode=True).strip().removesuffix("\n...")
    return f"`{text.replace(f'{ROOT}/', '')}`"


# Tables


def tables() -> str:
    """Every table with its columns."""
    told = (
        "Every table of the lake: what one row is, its key, and its columns in the order in which they are stored. A "
        "table with a partition column has one file for each of its values. `rlhi export rlhi.duckdb` writes all of them "
        "for SQL, and `rlhi.table(NAME)` reads one from Python."
    )
    lines: list[str] = []
    for name, each in sorted(TABLES.items()):
        key = ", ".join(f"`{column}`" for column in each.unique)
        parts = f" Partitioned by `{each.partition_column}`." if each.partition_column else ""
        rows = [(f"`{column}`", f"`{type_name(dtype)}`", meaning) for column, (dtype, meaning) in each.columns.items()]
        lines += [f"## {name}", "", f"{_prose(each.grain)} Key: {key}.{parts}", "", *table(("column", "type", "meaning"), rows), ""]
    return page("Tables", told, lines)


# Assets


def catalogue() -> str:
    """Every asset with its inputs, settings, checks and jobs."""
    made = definitions.build(profiles.load("sample"))
    graph = made.resolve_asset_graph()
    jobs = {
        name: {key.to_user_string() for key in made.resolve_job_def(name).asset_layer.selected_asset_keys}
        for name in ("preference_data", "training", "benchmarks")
    }
    told = (
        "Every asset of the graph under the profile `sample`. Under *reads* stand the settings that are part of the "
        "asset's code version: if one changes, Dagster marks the asset as out of date. What each check means is in "
        "[assets](assets.md), columns are in [tables](tables.md)."
    )
    lines: list[str] = []
    by_group: dict[str, list[dg.AssetSpec]] = {}
    for spec in made.resolve_all_asset_specs():
        by_group.setdefault(spec.group_name or "", []).append(spec)
    for group, specs in sorted(by_group.items()):
        lines += [f"## {group}", ""]
        for spec in sorted(specs, key=lambda each: each.key):
            name = spec.key.to_user_string()
            lines += [f"### {name}", "", (spec.description or "").strip(), ""]
            guards = [graph.get(key) for key in graph.asset_check_keys if key.asset_key == spec.key]
            checks = sorted(f"`{check.key.name}`" + ("" if check.blocking else " (warns)") for check in guards)
            by = "recipe" if name in jobs["training"] | jobs["benchmarks"] else "month"
            rows = [
                ("made of", ", ".join(sorted(f"`{dep.asset_key.to_user_string()}`" for dep in spec.deps)) or "nothing here"),
                ("partition", "none" if spec.partitions_def is None else by),
                ("jobs", ", ".join(f"`{job}`" for job, names in jobs.items() if name in names) or "none"),
                ("kinds", ", ".join(sorted(spec.kinds)) or "none"),
                ("reads", str(spec.metadata.get("settings") or "no settings")),
                ("checks", ", ".join(checks) or "none"),
            ]
            lines += [*table(("", ""), rows), ""]
    return page("Assets and checks", told, lines)


# Metadata


def metadata_keys() -> str:
    """What the pages of assets show, by asset; read off the calls that give results."""
    told = (
        "The numbers, tables and pictures that a materialization of each asset shows, under the keys by which Dagster "
        "plots them over time. `calls/*` stands for requests, cached ones, errors, tokens, seconds and cost of model "
        "calls. Beside these every table has `dagster/row_count` or `dagster/partition_row_count`, `path` and "
        "`content_sha256`."
    )
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "assets").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="result"), args=[ast.Constant(value=name), *_]) if name in TABLES:
                    keys = [each.arg for each in node.keywords if each.arg]
                    is_model = any(each.arg is None and "calls.metadata" in ast.unparse(each.value) for each in node.keywords)
                    found.setdefault(str(name), []).extend([*keys, *(["calls/*"] if is_model else [])])
    rows = [(f"`{name}`", ", ".join(f"`{key}`" for key in dict.fromkeys(keys)) or "–") for name, keys in sorted(found.items())]
    return page("Metadata keys", told, table(("asset", "keys"), rows))


PAGES = {
    "docs/reference/cli.md": cli,
    "docs/reference/profile.md": profile,
    "docs/reference/tables.md": tables,
    "docs/reference/catalogue.md": catalogue,
    "docs/reference/metadata.md": metadata_keys,
}
"""What makes each page."""
