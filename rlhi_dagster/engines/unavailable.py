"""Why a model cannot be loaded, in one sentence that names the setting and what to do. Importing it loads no model library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rlhi_dagster.base import failures
from rlhi_dagster.engines.models import ModelRef


class UnavailableModelError(ValueError):
    """A model that is not where the profile says, or that cannot be read."""


class UnreachedHubError(UnavailableModelError, failures.PassingError):
    """The Hub, which has the model, could not be reached."""


@contextmanager
def loading(model: ModelRef, setting: str = "models") -> Iterator[None]:
    """To be used around ``from_pretrained``.

    Args:
        model: What is loaded.
        setting: The profile's setting that names it.

    Raises:
        UnavailableModelError: It cannot be loaded; the message says why and what to do.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        is_lost = failures.may_pass(error) and not model.path
        raise (UnreachedHubError if is_lost else UnavailableModelError)(_reason(model, setting, error)) from error


def _reason(model: ModelRef, setting: str, error: Exception) -> str:
    if model.path:
        return f"the folder {model.path} holds no model that can be loaded ({_line(error)}): weights, config and tokenizer must lie there"
    kinds = {kind.__name__ for each in failures.chain(error) for kind in type(each).__mro__}
    page = f"https://huggingface.co/{model.name}"
    if "GatedRepoError" in kinds:
        return f"{setting} {model.name} is a gated model: ask for access at {page}, then log in with `hf auth login` or set HF_TOKEN"
    if "RevisionNotFoundError" in kinds:
        instead = f"write hub: {model.name}@<commit of 40 digits> with one of {page}/commits"
        return f"{setting} {model.name} has no revision {model.revision}: {instead}"
    if kinds & {"RepositoryNotFoundError", "HFValidationError"}:
        return (
            f"{setting} {model.name} is no model of the Hub, or a private one: correct it, or log in with `hf auth login` or set HF_TOKEN; "
            "a local model is given by its folder"
        )
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "TimeoutException"}:
        return (
            f"the Hub cannot be reached, and {setting} {model.name} at {model.revision} is not in its cache: connect once, "
            f"copy the cache (HF_HOME) from where it is, or set {setting} to a local folder with weights, config and tokenizer"
        )
    return f"{setting} {model.name} at {model.revision} cannot be loaded: {_line(error)}"


def _line(error: Exception) -> str:
    """The message up to its first line break, without the point at its end."""
    return str(error).strip().partition("\n")[0].rstrip(".")
