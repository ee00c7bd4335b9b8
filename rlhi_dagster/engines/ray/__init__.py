"""Engines on a Ray cluster: docs/decisions/ray.md. ``engines`` has what others use."""
