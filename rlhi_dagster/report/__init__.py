"""The report: one self-contained page with every number, its interval and what it rests on.

What belongs here: what the page shows (``results``, ``logs``, ``wishes``, ``process``), from which inputs (``data``), in which words
(``words``), how it is set (``page.html``, ``page.css``, ``page``), and writing it (``write``). What does not: computing scores
(``evaluation``) and drawing (``plots``, ``training/curves``).

The page asks for nothing from the network and depends on its inputs alone: the same inputs give the same bytes.
"""
