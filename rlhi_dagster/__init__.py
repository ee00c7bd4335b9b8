"""Reinforcement learning from human interaction (RLHI) as Dagster assets: the library half, without asset definitions."""
