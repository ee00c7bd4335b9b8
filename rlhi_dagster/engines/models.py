"""Which model: a Hub revision or a local folder of weights, and the identity that cache keys and tables carry."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhi_dagster.base.failures import NotMadeError

MANIFEST = "manifest.json"
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
        """
        model = read_manifest(folder)["model"]
        path = None if model["path"] is None else str(folder / model["path"])
        return cls(model["name"], model["revision"], path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of an artefact's folder says.

    Raises:
        NotMadeError: The folder has no manifest, so nothing finished writing it.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise NotMadeError(f"{folder} holds no finished model ({MANIFEST} is missing)", folder)
    return dict(json.loads(manifest.read_text(encoding="utf-8")))


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
