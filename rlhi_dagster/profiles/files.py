"""The YAML files that profiles are read from: what extends what, where each value comes from, and what a setting used to be called.

What belongs here: files, merging, and the effective profile as text. What does not: what settings there are and mean (``__init__.py`` and
the stages' ``settings.py``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from rlhi_dagster.conversations.sources.files import is_there
from rlhi_dagster.engines.model_settings import BUILTIN, ROLES, WAYS, ModelSettings, OwnSampling

ROOT = Path(__file__).parents[2]
"""The checkout."""
FOLDERS = ("recipes", "prompts")
"""Settings that name a folder relative to the file that they stand in."""
MOVED = {
    "held_out_fraction": "split: {tuning: SHARE, test: SHARE}, two parts of what it was",
    "engines": "models.<role>.engine",
    "pair_judge": "models.pair_judge: rule, town, village or a model",
    "policy.hub_model": "models.policy: {hub: OWNER/NAME@COMMIT} or {folder: PATH}",
    "policy.hub_revision": "the part after @ in models.policy: {hub: OWNER/NAME@COMMIT}",
    "reward.hub_model": "models.reward: {hub: OWNER/NAME@COMMIT} or {folder: PATH}",
    "reward.hub_revision": "the part after @ in models.reward: {hub: OWNER/NAME@COMMIT}",
    "labeller.hub_model": "models.labeller: {hub: OWNER/NAME@COMMIT}",
    "labeller.hub_revision": "the part after @ in models.labeller: {hub: OWNER/NAME@COMMIT}",
    "personas.writer": "models.persona_writer: extractive or a model",
    "rewrites.rewriter": "models.rewriter: policy or a model",
    "reasoning.simulated_user": "models.simulated_user: template or a model",
    "evaluation.judge": "models.judge: town, village, a model, or a list of several",
    "evaluation.judge_model": "models.judge: {hub: OWNER/NAME@COMMIT}",
    "evaluation.judge_revision": "the part after @ in models.judge: {hub: OWNER/NAME@COMMIT}",
}
"""Settings of earlier versions, and where they are now."""


class ProfileError(ValueError):
    """A profile that cannot be used; the message says which setting of which file, and what to do."""


def available() -> list[str]:
    """Names of the profiles that come with the project."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _packaged().iterdir() if entry.name.endswith(".yaml"))


def is_path(profile: str) -> bool:
    """Whether a profile is given by the path of a YAML file rather than by its name."""
    return profile.endswith((".yaml", ".yml"))


def unknown(name: str, where: str = "RLHI_PROFILE=") -> str:
    """What to say of a profile that is not there."""
    return f"{where}{name}: no such profile; there are {', '.join(available())}, or give the path of a YAML file"


def read(name: str) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """Read a profile's file and those that it extends.

    Args:
        name: Name of a profile, or path to a YAML file.

    Returns:
        The file, the merged settings, and by dotted path of each value that a file gives the name of that file.

    Raises:
        ProfileError: A file is missing, is no YAML mapping, extends itself, or has a setting that has moved.
    """
    return _read(name, Path(), ())


def absolute(location: str) -> str:
    """A location with a relative path counted from the working directory, if there is something, or from the checkout."""
    if "://" in location:
        return location
    path = Path(location).expanduser()
    return str(path if path.is_absolute() else path.absolute() if is_there(str(path)) else ROOT / path)


def slug(location: str) -> str:
    """A name for a location that is fit for a folder, told from others of the same file name by a digest."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(location).stem).strip("-").lower() or "source"
    return f"{stem[:40]}-{hashlib.sha256(absolute(location).encode()).hexdigest()[:6]}"


def text(profile: BaseModel, origins: Mapping[str, str]) -> str:
    """The effective profile as YAML that can be used as a profile; comments say where values come from and what they mean.

    Args:
        profile: The settings.
        origins: As of `read`; what is in none of the files is a default.
    """
    return "\n".join(_lines(profile, origins, "", 0))


def _packaged() -> Any:
    return files("rlhi_dagster") / "profiles"


def _read(name: str, beside: Path, seen: tuple[Path, ...]) -> tuple[Path, dict[str, Any], dict[str, str]]:
    is_known = is_path(name) or name in available()
    file = (beside / name if is_path(name) else Path(str(_packaged()), f"{name}.yaml")).resolve() if is_known else None
    if file is None or not file.is_file():
        raise ProfileError(unknown(name, f"{seen[-1]}: extends: " if seen else "RLHI_PROFILE="))
    if file in seen:
        raise ProfileError(f"{' extends '.join(map(str, [*seen, file]))}: a profile cannot extend itself")
    try:
        own = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{file} is not YAML: {error}") from error
    if not isinstance(own, dict):
        raise ProfileError(f"{file} must be a mapping of settings")
    _refuse_moved(own, file)
    for folder in FOLDERS:
        if isinstance(given := own.get(folder), str):
            own[folder] = str((file.parent / given).resolve())
            if not Path(own[folder]).is_dir():
                raise ProfileError(f"{file}: {folder}: {own[folder]} is no folder")
    base = own.pop("extends", None)
    if base is None:
        return file, own, dict.fromkeys(_paths(own), file.name)
    if not isinstance(base, str):
        raise ProfileError(f"{file}: extends: name one profile, or the path of one, not {base!r}")
    _, settings, origins = _read(base, file.parent, (*seen, file))
    # A profile of one's own is called as its file, unless it says otherwise.
    merged = _merged(settings, {"name": file.stem, **own})
    kept = {path: origin for path, origin in origins.items() if path in set(_paths(merged))}
    return file, merged, kept | dict.fromkeys(_paths({"name": file.stem, **own}), file.name)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """What `above` says, and of what it does not say what `below` does; lists are not joined, and mappings of another kind replace."""
    found = dict(below)
    for name, value in above.items():
        before, value = _spelled(f"{path}{name}", found.get(name)), _spelled(f"{path}{name}", value)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and not _is_another(before, value):
            if set(WAYS) & value.keys():
                before = {key: kept for key, kept in before.items() if key not in (*WAYS, "package")}
            found[name] = _merged(before, value, f"{path}{name}.")
        else:
            found[name] = value
    return found


def _spelled(path: str, given: Any) -> Any:
    """A player that is named by a word as the mapping that this stands for, so that another profile can add to it."""
    section, _, role = path.partition(".")
    if section != "models" or role not in ROLES or not isinstance(given, str):
        return given
    return {"builtin": given} if given in BUILTIN[role] else {"same_as": given}


def _is_another(before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether a mapping with a kind is to be one of another kind, whose settings are others."""
    return "kind" in value and value["kind"] != before.get("kind")


def _paths(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _refuse_moved(settings: Mapping[str, Any], file: Path) -> None:
    for path, now in MOVED.items():
        section, _, name = path.partition(".")
        given = settings.get(section)
        if section in settings and (not name or (isinstance(given, Mapping) and name in given)):
            raise ProfileError(f"{file}: {path} is no setting any more; write {now}")


def _lines(model: BaseModel, origins: Mapping[str, str], prefix: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(model).model_fields.items():
        value, path, told = getattr(model, name), f"{prefix}{name}", " ".join((field.description or "").split())
        if isinstance(model, ModelSettings | OwnSampling) and value in (None, OwnSampling()):
            continue  # of the ways to name a player one is taken
        if isinstance(value, BaseModel):
            yield f"{indent}{name}: # {told}"
            yield from _lines(value, origins, f"{path}.", depth + 1)
            continue
        dumped = model.model_dump(mode="json", include={name}, exclude_none=isinstance(value, tuple)).get(name)
        written = yaml.safe_dump(dumped, default_flow_style=True, width=10**9, allow_unicode=True).strip().removesuffix("\n...")
        known = [origin for given, origin in origins.items() if f"{given}.".startswith(f"{path}.") or f"{path}.".startswith(f"{given}.")]
        yield f"{indent}{name}: {written} # {known[-1] if known else 'default'}: {told}"
