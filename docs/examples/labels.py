# %% [markdown]
# # How good are the labels?
#
# The bundled sample is a simulation, so the true label of every follow-up is known. On your own logs the second file is one that you
# labelled by hand: a hundred follow-ups are a good start.

# %%
from pathlib import Path

import polars as pl

import rlhi_dagster as rlhi

sample = Path(rlhi.__file__).parents[1] / "data" / "sample"
some = pl.read_parquet(sample / "wildchat.parquet").filter(pl.int_range(pl.len()) % 40 == 0)
logs = rlhi.read(some, salt="an example")
print(logs.account)

# %% [markdown]
# The labels that were given, in the columns that `agreement` wants: the source's own id, the position of the message, the label.

# %%
truth = pl.read_parquet(sample / "truth" / "labels.parquet")
print(truth.columns)
gold = truth.select("conversation_hash", "message_index", "label")

# %% [markdown]
# Accuracy, with an interval from resamples of whole conversations, and precision and recall of each label.

# %%
found = rlhi.agreement(logs, gold)
print(f"{found.matched} follow-ups; accuracy {found.scores['accuracy']['value']:.2f}")
print(found.by_label.select("label", "support").sort("label").rows())

# %% [markdown]
# The town words its wishes in a few ways, so this is close to exact. What to expect of real conversations is in
# [results/real_wildchat.md](../results/real_wildchat.md).
