"""Assets, checks, schedules and components of one's own: what ``dg scaffold defs`` writes here is part of the code location.

An example:
``dg scaffold defs dagster.asset followups_by_language.py``, then name one of the project's tables as a parameter of its function.
"""
