"""The town's policy: shape, special tokens and chat template.

Trained by ``workers/train_policy.py``; profiles without it name a Hub model.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

SPECIAL_TOKENS = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|pad|>")
"""Begin, end of message, header open, header close, padding: Llama 3's names."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|eot_id|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|eot_id|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Llama 3's layout without its date header; the generation marks tell the trainer which tokens the assistant wrote."""


class TownPolicy(BaseModel, frozen=True, extra="forbid"):
    """Shape of the town's Llama: 1 to 3 million parameters."""

    layers: int = Field(ge=1, description="Transformer blocks.")
    width: int = Field(ge=16, description="Hidden size.")
    feed_forward_width: int = Field(ge=16, description="Inner size of the feed-forward blocks.")
    heads: int = Field(ge=1, description="Attention heads.")
    head_width: int = Field(ge=8, description="Size of each; of small ones, vLLM on a CPU takes 32 and 64 only.")
    vocabulary: int = Field(ge=300, description="Size of the byte-level BPE.")
    context: int = Field(ge=64, description="Longest sequence in tokens.")
    initial_deviation: float = Field(gt=0, description="Standard deviation of the initial weights; Llama's 0.02 suits wider layers.")

    @property
    def parameters(self) -> int:
        """Weights, with the head's those of the embedding; fewer where the corpus gives a smaller vocabulary."""
        attention, feed_forward = 4 * self.width * self.heads * self.head_width, 3 * self.width * self.feed_forward_width
        return self.vocabulary * self.width + self.layers * (attention + feed_forward + 2 * self.width) + self.width
