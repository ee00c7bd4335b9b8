"""The response store: every model answer, kept by the content of its request, and what takes care of it.

What belongs here: segments, look-ups, compaction, garbage, what assets use, and ``rlhi store``. What does not: asking models
(``engines``).
"""
