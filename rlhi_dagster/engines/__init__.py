"""Model engines behind small interfaces, and running requests through them and the response store.

What belongs here: turning requests into answers (chat, reward, embedding), order and counts, forecasts of cost. What does not: what to
ask (the stages' packages), remembering answers (``store``), and starting processes (``workers/``, ``graph/resources.py``).
"""
