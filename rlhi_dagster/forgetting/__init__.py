"""Forgetting a user: what of theirs is where, taking it out, and never letting it in again.

What belongs here: tombstones, the rows, answers and vectors that come from a user, the marks on artefacts trained on their pairs, and
``rlhi forget``. What does not: deleting from the store (``store/erase.py``) and refusing rows of the source (``conversations``).
"""
