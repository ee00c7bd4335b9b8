# %% [markdown]
# # From a frame to preference pairs
#
# Three conversations, as a chat application may have logged them. One user asks twice for bullet points; another one is content.

# %%
import polars as pl

import rlhi_dagster as rlhi

said = [
    (
        "s-1",
        "cust-42",
        "2026-10-01T10:00:00Z",
        [
            "How do I return a parcel?",
            "Returning a parcel is easy. First you open the page of your order. Then you print the label.",
            "Too long. Please use bullet points.",
            "- Open the page of your order\n- Print the label",
        ],
    ),
    (
        "s-2",
        "cust-42",
        "2026-10-09T09:00:00Z",
        [
            "What does express delivery cost?",
            "Express delivery costs nine euros. It takes one day. It is offered in all cities.",
            "Use bullet points again, please.",
            "- Nine euros\n- One day\n- All cities",
        ],
    ),
    ("s-3", "cust-7", "2026-10-11T12:00:00Z", ["Where is my parcel?", "It is on its way.", "Thanks!", "You are welcome."]),
]
frame = pl.DataFrame(
    {
        "session_id": [row[0] for row in said],
        "user": [row[1] for row in said],
        "created": [row[2] for row in said],
        "model": ["m-1"] * len(said),
        "messages": [
            [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, row[3], strict=True)] for row in said
        ],
    }
)

# %% [markdown]
# `read` recognises the layout by the columns, and accounts for every row.

# %%
logs = rlhi.read(frame, salt="an example")
print(logs.account)

# %% [markdown]
# What does each follow-up say about the reply before it?

# %%
for row in rlhi.label(logs, text=True).iter_rows(named=True):
    print(f"{row['label']:<25} {row['follow_up']}")

# %% [markdown]
# What is known of users by now, and in whose words?

# %%
for row in rlhi.persona_lines(logs).iter_rows(named=True):
    print(f"{row['line']:<28} since {row['valid_from']:%Y-%m-%d}, said as {[quote for quote in row['quotes'] if quote]}")

# %% [markdown]
# A follow-up that criticises a reply, and the reply after it, make a pair. It has the persona as it was at that moment: of the first
# conversation nothing was known before. Reasons against a pair stand beside it.

# %%
for row in rlhi.pairs(logs).sort("asked_at").iter_rows(named=True):
    print(f"request   {row['prompt'][-1]['content']}")
    print(f"persona   {row['persona'] or 'nothing known yet'}")
    print(f"follow-up {row['follow_up']}")
    print(f"rejected  {row['rejected']}")
    print(f"chosen    {row['chosen']}")
    print(f"kept      {row['is_kept']} {row['drop_reasons']}\n")

# %% [markdown]
# The same with pandas: a frame of pandas in, frames of pandas out.

# %%
print(type(rlhi.label(rlhi.read(frame.to_pandas(), salt="an example"))).__module__.partition(".")[0])
