"""From labelled conversations to preference pairs: regenerated replies, rewrites, ranked candidates, corrected solutions, and their union.

What belongs here: pure functions from tables to tables, with the model's answers handed in. What does not: calling models (``engines/``,
``workers/``) and training on the pairs (``training/``).
"""
