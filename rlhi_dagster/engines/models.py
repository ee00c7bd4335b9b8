"""Which model: a Hub revision or a local folder of weights, and the identity that cache keys and tables carry."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhi_dagster.base.failures import DamagedError, NotMadeError

MANIFEST = "manifest.json"
_SEAL = "seal"
"""Under this name a manifest carries the digest of all else that it says."""
MARK = "forgotten.json"
"""What `rlhi forget` puts beside a manifest: it says something about the weights and is none of them."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model that an engine can load.

    Attributes:
        name: Hub id, or a speaking name for local weights.
        revision: Hub commit, or digest of the local weights. Part of every cache key.
        path: Folder with the weights; ``None`` to load ``name`` at ``revision`` from the Hub.
    """

    name: str
    revision: str
    path: str | None = None

    @property
    def identity(self) -> str:
        """``name@revision`` with digests shortened: what tables store."""
        return f"{self.name}@{self.revision[:16]}"

    @property
    def source(self) -> str:
        """What ``from_pretrained`` gets."""
        return self.path or self.name

    def load_kwargs(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained`` that pin the revision and refuse code and pickles from the Hub."""
        pinned: dict[str, Any] = {"trust_remote_code": False}
        return pinned | ({"local_files_only": True} if self.path else {"revision": self.revision})

    def to_dict(self) -> dict[str, str | None]:
        """A JSON-ready copy, from which ``ModelRef(**copy)`` makes the same again."""
        return asdict(self)

    @classmethod
    def from_manifest(cls, folder: Path) -> ModelRef:
        """Read the model that an artefact folder stands for; the manifest's ``path`` is null for the Hub, or relative to the folder.

        Raises:
            NotMadeError: The folder has no manifest, so nothing finished writing it.
            DamagedError: The manifest is not as it was written.
            ValueError: The manifest says why there is no model.
        """
        manifest = read_manifest(folder)
        if "model" not in manifest:
            raise ValueError(f"{folder.name} holds no model: {manifest['why']}")
        model = manifest["model"]
        path = None if model["path"] is None else str(folder / model["path"])
        return cls(model["name"], model["revision"], path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of an artefact's folder says.

    Raises:
        NotMadeError: The folder has no manifest, so nothing finished writing it.
        DamagedError: The manifest is not as it was written.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise NotMadeError(f"{folder} holds no finished model ({MANIFEST} is missing)", folder)
    try:
        told = dict(json.loads(manifest.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{manifest} is damaged: it is not the JSON that was written", folder) from error
    if _SEAL in told and told[_SEAL] != _seal(told):
        raise DamagedError(f"{manifest} is damaged: its checksum is another one than when it was written", folder)
    return told


def write_manifest(folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Write what the manifest of an artefact's folder says, which it replaces at once; return it with the checksum that it carries."""
    plain = json.loads(json.dumps(told))
    sealed = plain | {_SEAL: _seal(plain)}
    partial = folder / f".{MANIFEST}.{os.getpid()}.partial"
    partial.write_text(json.dumps(sealed, indent=1), encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return sealed


def _seal(told: Mapping[str, Any]) -> str:
    return digest_of({name: value for name, value in told.items() if name != _SEAL})


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of the weight, tokenizer and config files in ``folder``."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.is_file() and file.name not in {MANIFEST, MARK} and file.suffix in {".safetensors", ".json", ".jinja"}:
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def digest_of(*parts: Any) -> str:
    """SHA-256 (32 hexadecimal digits) of the canonical JSON of ``parts``."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
