"""The layouts that can be read, one module each.

What belongs here: the list of layouts, in the order in which they are tried, and one module for each. What does not: what layouts share
(``parts``, ``cells``, ``columns``, ``scores``, ``assembly``; within this package ``messages`` and ``exchanges``).

A new layout is one module with a `Layout`, its name in `SourceKind`, and a line in `LAYOUTS`. What it has to say is: is this row mine, and
what does it say? A conversation whose rows name the message before them, or repeat their history, is put together by its `Assembly`.
"""

from collections.abc import Mapping
from typing import Any

from rlhi_dagster.conversations.sources.layouts import (
    anthropic,
    arena,
    chatgpt,
    claude_code,
    codex,
    helicone,
    langfuse,
    langsmith,
    librechat,
    litellm,
    lmsys,
    messages,
    oasst,
    open_webui,
    openai,
    openai_responses,
    openinference,
    otel,
    realhumaneval,
    wildchat,
)
from rlhi_dagster.conversations.sources.records import Layout
from rlhi_dagster.conversations.sources.settings import SourceKind

LAYOUTS: Mapping[SourceKind, Layout] = {
    layout.kind: layout
    for layout in (
        wildchat.LAYOUT,
        realhumaneval.LAYOUT,
        lmsys.LAYOUT,
        openinference.LAYOUT,
        otel.LAYOUT,
        arena.LAYOUT,
        oasst.LAYOUT,
        chatgpt.LAYOUT,
        claude_code.LAYOUT,
        codex.LAYOUT,
        langfuse.LAYOUT,
        langsmith.LAYOUT,
        open_webui.LAYOUT,
        librechat.LAYOUT,
        litellm.LAYOUT,
        helicone.LAYOUT,
        openai_responses.LAYOUT,
        anthropic.LAYOUT,
        openai.LAYOUT,
        messages.LAYOUT,
    )
}
"""By their names, the special before the general: a row that several fit is of the first."""


def layout_of(row: Mapping[str, Any]) -> Layout | None:
    """The layout of a row; None if it is of none."""
    return next((layout for layout in LAYOUTS.values() if layout.fits(row)), None)


def layout_in(source: Layout, row: Mapping[str, Any]) -> Layout:
    """The layout of a row in a source: that of the source, but data sets (what can be read column by column) may lie beside each other."""
    if source.columns is None:
        return source
    return next((layout for layout in LAYOUTS.values() if layout.columns is not None and layout.fits(row)), source)
