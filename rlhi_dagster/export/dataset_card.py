"""The card of an exported dataset folder: what is in it, how it was made, and what to beware of.

What belongs here: the columns of the folder's files and the text of its ``README.md``, made from the run's tables and settings. What does
not: choosing the pairs (``selection.py``) and writing them (``writing.py``). No text of any conversation goes into a card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import yaml

from rlhi_dagster.base.digests import fingerprint
from rlhi_dagster.base.escapes import markdown, markdown_block, markdown_code, markdown_table, visible
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import PREFERENCE_PAIRS
from rlhi_dagster.preferences import Source
from rlhi_dagster.training import recipes

if TYPE_CHECKING:
    from rlhi_dagster.profiles import Profile

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_TYPES = {
    "pair_id": pa.string(),
    "source": pa.string(),
    "prompt": _MESSAGES,
    "chosen": _MESSAGES,
    "rejected": _MESSAGES,
    "persona": pa.string(),
    "strategy": pa.string(),
    "is_off_policy": pa.bool_(),
    "meets_feedback": pa.float64(),
    "chosen_reward": pa.float64(),
    "rejected_reward": pa.float64(),
    "model": pa.string(),
    "reward_model": pa.string(),
    "error_id": pa.string(),
}
COLUMNS = tuple(_TYPES)
_MEANINGS = {
    "source": "Where the pair comes from, and so what is preferred against what: see below.",
    "is_off_policy": "Another model than `model` wrote the dispreferred reply: it is the logged one.",
    "meets_feedback": "Probability, by a judge, that the preferred reply does what the feedback asks; null where there is none.",
    "strategy": "How the preferred reply was made: rewritten (`feedback`, `scratch`, `logged`), `best_of_n`, `corrected`, "
    "or what the user did (`edit`, `regeneration`, `choice`).",
    "prompt": "Messages up to the reply, with the persona as the system message where it is shown.",
    "chosen": "Preferred reply, as one message.",
    "rejected": "Dispreferred reply, as one message.",
}
SOURCES = {
    Source.REWRITES: "the rewrite of a reply that a user criticised, made with the criticism in view, against that reply",
    Source.REWRITES_FROM_SCRATCH: "another reply made without the criticism in view, against the reply that drew it",
    Source.REWRITES_LOGGED: "the logged reply after the criticism against the logged reply that drew it",
    Source.REWARDS: "the best against the worst of several sampled replies, by a reward model that saw the user's persona",
    Source.REWARDS_SHUFFLED: "the same by a reward model that saw another user's persona (a control)",
    Source.REWARDS_NONE: "the same by a reward model that saw no persona (a control)",
    Source.REASONING: "a corrected solution against an erroneous one of PRM800K, both checked against the known answer where there is one",
    Source.EDITS: "the logged reply as the user edited it, against that reply",
    Source.SIBLINGS: "the reply that the user kept, against one that the user had regenerated",
    Source.DRAFTS: "the reply that the user chose, against one that was shown beside it",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
_DROPPING = ("rewrite_pairs", "reward_pairs", "reasoning_pairs", "explicit_pairs", "preference_pairs")


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """The pairs of one split, as they were written.

    Attributes:
        split: ``train`` or ``validation``.
        rows: The pairs; columns ``source``, ``persona``, ``model`` and ``reward_model`` at least.
        memory_bytes: Size in memory.
        file_bytes: Size of the file.
    """

    split: str
    rows: pl.DataFrame
    memory_bytes: int
    file_bytes: int


def schema() -> pa.Schema:
    """Columns and types of the folder's files."""
    return pa.schema(list(_TYPES.items()))


def file_of(split: str) -> str:
    """Where the pairs of a split lie in the folder."""
    return f"data/{split}-00000-of-00001.parquet"


def table_of(recipe: str | None, recipe_folder: str | None = None) -> tuple[str, list[str] | None]:
    """The table that a recipe's rows are drawn from, and its partitions: one with rounds has pairs of its own, others have examples."""
    if recipe is not None:
        chosen = recipes.load(recipe, recipe_folder)
        if chosen.rounds:
            return "online_pairs", [recipe]
        if chosen.method in ("kto", "sdpo"):
            return {"kto": "thumb_examples", "sdpo": "follow_up_examples"}[chosen.method], None
    return "preference_pairs", None


def card(shares: Sequence[Share], recipe: str | None, lake: Lake, profile: Profile) -> str:
    """The text of ``README.md``.

    Args:
        shares: What was written.
        recipe: The recipe whose pairs they are, if any.
        lake: The run's tables: they say what was dropped and which version this is.
        profile: The run's settings.
    """
    rows = pl.concat([share.rows.with_columns(split=pl.lit(share.split)) for share in shares])
    header = visible(yaml.safe_dump(_header(shares), sort_keys=False, allow_unicode=True))
    parts = [f"---\n{header}---", f"# Preference pairs from {markdown(profile.source.name)}", *_about(rows, recipe, lake, profile)]
    return "\n\n".join([*parts, *_how_made(rows, recipe, lake, profile), *_caution(profile)]) + "\n"


def _header(shares: Sequence[Share]) -> dict[str, Any]:
    total = sum(len(share.rows) for share in shares)
    splits = [{"name": share.split, "num_bytes": share.memory_bytes, "num_examples": len(share.rows)} for share in shares]
    return {
        "configs": [
            {"config_name": "default", "data_files": [{"split": share.split, "path": f"data/{share.split}-*"} for share in shares]}
        ],
        "dataset_info": {
            "features": [{"name": name, **_feature(kind)} for name, kind in _TYPES.items()],
            "splits": splits,
            "download_size": sum(share.file_bytes for share in shares),
            "dataset_size": sum(share.memory_bytes for share in shares),
        },
        "size_categories": [next((name for limit, name in _SIZES if total < limit), "n>10M" if total < 10**9 else "n>1B")],
        "task_categories": ["text-generation"],
        "tags": ["preference", "dpo", "trl", "persona", "human-feedback"],
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("struct", inner.get("dtype"))}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in kind]}
    return {"dtype": {pa.string(): "string", pa.float64(): "float64", pa.bool_(): "bool"}[kind]}


def _about(rows: pl.DataFrame, recipe: str | None, lake: Lake, profile: Profile) -> list[str]:
    counted = rows.group_by("source", "split").len().sort("source", "split")
    version = fingerprint(lake.scan(*table_of(recipe, profile.recipes)).collect())
    return [
        "Pairs of a preferred and a dispreferred reply, made from what users said to a chat model, after "
        "[reinforcement learning from human interaction](https://arxiv.org/abs/2509.25137), by rlhi-dagster with the profile "
        f"{markdown_code(profile.name)}." + (" The users are simulated." if profile.truth else ""),
        f"The pairs are those that the recipe {markdown_code(recipe)} trains and validates on."
        if recipe
        else "The pairs are all that were kept.",
        _table(["source", "split", "pairs"], [[markdown(value) for value in row] for row in counted.iter_rows()]),
        f"Splits are by user: no user is in both. Data version of the table they come from: `{version}`.",
        '```python\nfrom datasets import load_dataset\n\npairs = load_dataset("FOLDER")\n```',
        "## Columns",
        _table(["column", "meaning"], [(f"`{name}`", _MEANINGS.get(name) or PREFERENCE_PAIRS.columns[name][1]) for name in COLUMNS]),
    ]


def _how_made(rows: pl.DataFrame, recipe: str | None, lake: Lake, profile: Profile) -> list[str]:
    of_sources = [f"- `{source}`: {SOURCES[Source(source)]}." for source in rows["source"].unique().sort()]
    models = [("replies", markdown(name)) for name in rows["model"].drop_nulls().unique().sort()]
    models += [("rewards", markdown(name)) for name in rows["reward_model"].drop_nulls().unique().sort()]
    writer, judge = profile.player("persona_writer"), profile.player("pair_judge")
    shown, by = rows.filter(pl.col("persona") != ""), "rules" if writer.program else markdown(writer.name)
    settings = {
        "rewrites": profile.rewrites.model_dump(mode="json"),
        "explicit_pairs": profile.explicit_pairs.model_dump(mode="json"),
        "candidates": profile.candidates.model_dump(mode="json"),
        "pairs": profile.pairs.model_dump(mode="json"),
    }
    return [
        "## How they were made",
        "Preferred against dispreferred:\n\n" + "\n".join(of_sources),
        _table(["models of", "name and revision"], models),
        f"Personas are lines about a user, drawn from that user's earlier messages only, by {by}; "
        f"{len(shown):,} of {len(rows):,} pairs ({len(shown) / max(len(rows), 1):.0%}) have one. Whether a rewrite meets the criticism was "
        f"judged by {f'the judge {markdown_code(judge.program)}' if judge.program else markdown(judge.name)}.",
        "Pairs that were dropped on the way, by table and reason; a pair with several reasons counts under each:",
        _table(["table", "reason", "pairs", "of all"], _dropped(recipe, lake, profile.recipes)),
        "Settings of the filters:\n\n" + markdown_block(yaml.safe_dump(settings, sort_keys=False), "yaml"),
    ]


def _dropped(recipe: str | None, lake: Lake, recipe_folder: str | None) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for name, partitions in dict([*((name, None) for name in _DROPPING), table_of(recipe, recipe_folder)]).items():
        found = lake.scan(name, partitions).select("is_kept", "drop_reasons").collect()
        reasons = found.filter(~pl.col("is_kept")).explode("drop_reasons", empty_as_null=True)["drop_reasons"]
        counts = reasons.fill_null("none given").value_counts(name="pairs").sort("pairs", "drop_reasons", descending=[True, False])
        lines += [(f"`{name}`", markdown_code(reason), f"{n:,}", f"{n / len(found):.1%}") for reason, n in counts.iter_rows()]
    return lines


def _caution(profile: Profile) -> list[str]:
    return [
        "## Privacy",
        "User fingerprints and times are not in these files, nor ids of conversations, messages, persona lines or model calls, by which "
        "pairs of one user could be put together; what pairs say, personas above all, can still tell that they are of one user. "
        "`pair_id` is a digest that no other pair has; by it `rlhi why` traces a pair in the run that made it, and rows are in "
        "an order that depends on it alone. Before any model saw a message, keys, e-mail addresses, card and phone numbers and machines' "
        "addresses in it were replaced by placeholders; names and what people tell of themselves were not. Personas say what users asked "
        "for. " + ("The users are simulated." if profile.truth else "Read a sample, and think of the people, before passing this on."),
        "## Licence",
        "None is given here. Prompts, and logged replies where there are any, are text of the source "
        f"{markdown_code(profile.source.name)} and under its licence; what a model wrote is under that model's terms.",
    ]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(names, rows) if rows else "None."
