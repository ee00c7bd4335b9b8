"""Engines on a Ray cluster: docs/ray.md. ``engines`` has what others use."""
