"""What users complain about: re-attempts with feedback, grouped by what is wished and by what was asked for.

What belongs here: from labels and messages to complaints (``complaints``), which wish a complaint has by rule (``kinds``), groups of
similar texts (``clusters``) and their names (``names``), the table (``grouping``), and what is counted of it (``counts``). What does not:
which follow-ups are complaints (``labels``) and the page that shows them (``report``).
"""
