"""Worker: make an ordinary folder of a GGUF file: safetensors, config, tokenizer with chat template, generation config and manifest.

transformers de-quantizes the file (``gguf_file``); nothing is computed here beside it. The folder holds float32, which keeps every value:
those of Q4_1, scale times level plus least value of a block, need more bits than a 16-bit float has. Of SmolLM2-135M-Instruct in Q4_1,
rounding to bfloat16 changes 79 % of the weights by up to 0.4 % each and moves logits (standard deviation 7.8) by up to 0.28; float16
changes 42 % and moves them by up to 0.04. Who needs half the memory loads the folder in bfloat16 (the engine's ``dtype``).

Job (Pipes extras): ``file`` (``GgufFile``), ``out``, the folder to write, and ``name``, the model's in its manifest. Where ``out`` was
made from the same file under the same name, nothing is done.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.base.owned import work_for
from rlhi_dagster.engines.models import weights_digest, write_manifest
from rlhi_dagster.engines.sources import GgufFile
from rlhi_dagster.training.artefacts import made_of, put_in_place
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.parent import end_with_parent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_UNKNOWN = ("not supported", "Unrecognized configuration class", "Unknown gguf model_type", "Cannot build a tokenizer")
"""In what transformers says of a whole file that it makes nothing of."""


class UnreadableGgufError(ValueError):
    """A GGUF file that transformers makes no model of; the message says why."""


def convert(file: GgufFile, out: Path, name: str, report: Callable[[str], object] = lambda line: None) -> dict[str, Any]:
    """Write the folder, unless it is there, and return its manifest.

    Args:
        file: What to convert.
        out: The folder; what is there of another file is replaced.
        name: Of the model, in the manifest.
        report: Called with lines for the log.

    Raises:
        UnreadableGgufError: The file is damaged or cut off, lacks weights, or is of a kind that transformers does not know; or the package
            ``gguf`` is missing.
    """
    started, inputs = time.monotonic(), file.inputs(name)
    if known := made_of(out, inputs):
        report(f"{out.name} was made from this file")
        return known
    from rlhi_dagster.workers import environment

    model, tokenizer = load(Path(file.path))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    manifest = {
        "model": {"name": name, "revision": weights_digest(partial), "path": "."},
        "inputs": inputs,
        "method": "gguf",
        "gguf": {"file": Path(file.path).name, "sha256": file.sha256, "package": file.package, "version": file.version},
        "steps": [],
        "seconds": round(time.monotonic() - started, 1),
        "parameters": model.num_parameters(),
        "code": environment.code(),
        "packages": environment.packages(),
    }
    manifest = write_manifest(partial, manifest)
    put_in_place(partial, out)
    report(f"converted {manifest['parameters']:,} parameters in {manifest['seconds']} s")
    return manifest


def load(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a GGUF file in float32, as if it had never been quantized, and its tokenizer; errors as of ``convert``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.integrations.gguf import read_gguf_metadata

    read = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            file.parent, **read, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **read)
    except ImportError as error:
        raise UnreadableGgufError(f"to read {file.name} the package gguf is needed: pip install 'rlhi-dagster[gguf]'") from error
    except Exception as error:  # the readers check little: bytes that are missing or wrong end in all kinds
        raise UnreadableGgufError(_reason(file, error)) from error
    if missing := sorted(found["missing_keys"]):
        raise UnreadableGgufError(
            f"{file.name} lacks {len(missing)} weights of the model, such as {missing[0]}: one of several parts must be merged with the "
            "others first (llama-gguf-split --merge)"
        )
    if broken := [key for key, value in model.named_parameters() if not torch.isfinite(value).all()]:
        raise UnreadableGgufError(f"{file.name} is damaged: {broken[0]} has values that are no numbers; get the file again")
    header, tensors = read_gguf_metadata(str(file))
    if "rope_freqs.weight" in tensors:
        raise UnreadableGgufError(
            f"{file.name} stretches its position encoding (rope_freqs.weight), which transformers does not read from GGUF, so the model "
            "would be another one: take it from the Hub or from a folder"
        )
    if header.get("tokenizer.ggml.pre") == "smollm":
        _split_digits(tokenizer)
    return model, tokenizer


def _reason(file: Path, error: Exception) -> str:
    line = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
    if any(text in line for text in _UNKNOWN):
        return f"{file.name} holds a model that transformers does not read from GGUF: {line}"
    return f"{file.name} is no whole GGUF file ({type(error).__name__}: {line}): it is damaged or cut off; get it again"


def _split_digits(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give SmolLM's tokenizer the step that transformers 5.19 forgets of it: digits stand alone before words are split off.

    Without it spaces before a number, as numbered lists inside others have them, become other tokens than in training.
    """
    from tokenizers import pre_tokenizers

    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)


def main() -> None:
    """Run the job that Pipes hands over."""
    end_with_parent()
    with open_dagster_pipes(), told():
        pipes = PipesContext.get()
        work_for(pipes.extras)
        job = pipes.extras
        convert(GgufFile(**job["file"]), Path(job["out"]), job["name"], pipes.log.info)


if __name__ == "__main__":
    main()
