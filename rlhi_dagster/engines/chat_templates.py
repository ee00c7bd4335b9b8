"""Tokenizers whose chat template asks for replies without thoughts. Importing it loads no model library.

Models that can think before they answer (Qwen3 and others) have templates that take ``enable_thinking`` and let them think unless it is
false. Their thoughts would be taken for a part of the reply: compared, trained on, and read as a label or a persona.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlhi_dagster.engines.models import ModelRef

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARGUMENTS: Mapping[str, bool] = {"enable_thinking": False}
"""What chat templates are given; those that do not know it take no notice."""
_SET = "".join(f"{{% set {name} = {str(value).lower()} %}}" for name, value in ARGUMENTS.items())


def load_tokenizer(model: ModelRef) -> PreTrainedTokenizerBase:
    """The tokenizer of a chat model, at the pinned revision, ``without_thoughts``."""
    from transformers import AutoTokenizer

    return without_thoughts(AutoTokenizer.from_pretrained(model.source, **model.load_kwargs()))


def without_thoughts(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The same tokenizer, with ``ARGUMENTS`` written into a template that knows them; so they hold for TRL, too, and once saved."""
    template = tokenizer.chat_template
    if isinstance(template, str) and any(name in template for name in ARGUMENTS) and not template.startswith(_SET):
        tokenizer.chat_template = _SET + template
    return tokenizer
