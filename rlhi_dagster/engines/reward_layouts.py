"""Layouts of reward models: which weights a checkpoint must have, and at which token its reward stands.

What belongs here: one class a layout, and what makes a checkpoint unfit for it. What does not: rendering conversations
(``transcripts``) and batches (``rewards``). Weights are safetensors, and no code of a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, LlamaModel, LlamaPreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.reward_prefix import inputs, reads_forward, shared_inputs

ATHENE_ARCHITECTURES = {"AtheneForSequenceClassification", "CustomAutoModelForSequenceClassification"}
"""The name in the model card's code, and the name that users of Athene-RM found in its config.json."""
_ATHENE_MARKER = 128_003
_ATHENE_TOKENS = 4096


class RewardModel(Protocol):
    """A loaded reward model.

    Attributes:
        context: Most tokens of a row.
        ending: Tokens that a row must have behind the chat template's.
    """

    context: int
    ending: tuple[int, ...]

    def rewards(self, rows: list[list[int]], prompts: Sequence[Hashable]) -> list[float]:
        """The reward of each row of tokens; ``prompts`` are equal where rows share one. No row's reward depends on the others."""
        ...


def load_reward_model(ref: ModelRef, tokenizer: Any, dtype: torch.dtype, device: torch.device) -> RewardModel:
    """Load a checkpoint in the layout that its config.json names.

    Raises:
        ValueError: It has not exactly the weights of that layout, or more than one output.
    """
    config = AutoConfig.from_pretrained(ref.source, num_labels=1, **ref.load_kwargs())
    if ATHENE_ARCHITECTURES & set(config.architectures or ()):
        return Athene(ref, config, tokenizer, dtype, device)
    return SequenceClassifier(ref, config, tokenizer, dtype, device)


class SequenceClassifier:
    """Any ``AutoModelForSequenceClassification`` with one output.

    Decoders read the reward at the last token that is not padding, and find it by the config's padding id. So rows are padded with
    that id, whatever the tokenizer says; where the config has none, with an id that ends no row of the batch.
    """

    ending: tuple[int, ...] = ()

    def __init__(self, ref: ModelRef, config: Any, tokenizer: Any, dtype: torch.dtype, device: torch.device) -> None:
        self.model = _load(AutoModelForSequenceClassification, ref, config, dtype).to(device).eval()
        self.model.config.use_cache = False
        self.text_config = self.model.config.get_text_config()
        self.context = min(int(self.text_config.max_position_embeddings), tokenizer.model_max_length)
        pad = self.text_config.pad_token_id
        self.pad = pad if pad is not None and 0 <= pad < self.text_config.vocab_size else None
        shares = isinstance(self.model, GenericForSequenceClassification) and reads_forward(self.text_config)
        self.backbone = self.model.base_model if shares else None

    @torch.inference_mode()
    def rewards(self, rows: list[list[int]], prompts: Sequence[Hashable]) -> list[float]:
        """See ``RewardModel.rewards``."""
        pad = min(set(range(len(rows) + 1)) - {row[-1] for row in rows}) if self.pad is None else self.pad
        self.text_config.pad_token_id = pad
        if self.backbone is None:
            given = inputs(rows, pad, self.model.device)
        else:
            given = shared_inputs(rows, prompts, pad, self.model.device, self.backbone, self.text_config)
        return self.model(**given).logits[:, 0].float().tolist()


class Athene:
    """Athene-RM: a Llama, and a head without bias that is read at a marker token behind the conversation.

    Read at the last token of a row, which must be the marker: the text may hold markers of its own, and a row that lost the last one
    would be rated by something else.
    """

    def __init__(self, ref: ModelRef, config: Any, tokenizer: Any, dtype: torch.dtype, device: torch.device) -> None:
        given = getattr(config, "cls_token_id", None)
        self.marker = _ATHENE_MARKER if given is None else int(given)
        if not 0 <= self.marker < config.vocab_size or tokenizer.convert_ids_to_tokens(self.marker) is None:
            raise ValueError(f"{ref.identity}: the marker token {self.marker} is not in the vocabulary of model and tokenizer")
        self.ending: tuple[int, ...] = (self.marker,)
        self.pad = 0 if self.marker else 1  # anything but the marker: rows are read by their length
        self.context = min(_ATHENE_TOKENS, int(config.max_position_embeddings))
        self.model = _load(AtheneForSequenceClassification, ref, config, dtype).to(device).eval()
        self.model.config.use_cache = False

    @torch.inference_mode()
    def rewards(self, rows: list[list[int]], prompts: Sequence[Hashable]) -> list[float]:
        """See ``RewardModel.rewards``.

        Raises:
            ValueError: A row does not end with the marker.
        """
        if any(row[-1:] != [self.marker] for row in rows):
            raise ValueError(f"a row does not end with the marker token {self.marker}, at which its reward stands")
        given = shared_inputs(rows, prompts, self.pad, self.model.device, self.model.model, self.model.config)
        return self.model(**given).tolist()


class AtheneForSequenceClassification(LlamaPreTrainedModel):
    """The weights of Athene-RM: ``model.*`` of a Llama, and ``v_head`` from its hidden size to one number."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        self.v_head = nn.Linear(config.hidden_size, 1, bias=False)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **given: Any) -> torch.Tensor:
        """Rewards at each row's last token, from rows padded on the right; ``given`` goes to the Llama.

        The head is applied in float32: in bfloat16 neighbouring rewards about 2 are 1/64 apart, and candidates would tie.
        """
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **given).last_hidden_state
        ends = attention_mask[:, -input_ids.shape[1] :].sum(-1) - 1
        last = hidden[torch.arange(len(hidden), device=hidden.device), ends]
        return last.float() @ self.v_head.weight[0].float()


def _load(kind: Any, ref: ModelRef, config: Any, dtype: torch.dtype) -> Any:
    """Load weights that are exactly the layout's: what a checkpoint lacks would be random numbers, what is left over went unread."""
    model, found = kind.from_pretrained(
        ref.source,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are an error below, with a sentence of ours
        output_loading_info=True,
        **ref.load_kwargs(),
    )
    layout = type(model).__name__
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        if wanted[0] == 1 and saved[0] > 1:
            raise ValueError(f"{ref.identity} has {saved[0]} outputs ({name}); a reward model has one")
        raise ValueError(f"{ref.identity}: {name} has the shape {tuple(saved)}, its config.json says {tuple(wanted)}")
    if found["missing_keys"]:
        raise ValueError(f"{ref.identity} is no reward model as {layout}: its weights lack {_some(found['missing_keys'])}")
    if found["unexpected_keys"]:
        raise ValueError(f"{ref.identity} is no reward model as {layout}, which has no place for {_some(found['unexpected_keys'])}")
    return model


def _some(keys: Any) -> str:
    names = sorted(keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
