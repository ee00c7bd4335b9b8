"""Model engines behind small interfaces, and the response store that every model call goes through.

What belongs here: turning requests into answers (chat, reward, embedding) and remembering them by content. What does not: what to ask
(the stages' packages) and starting processes (``workers/``, ``resources.py``).
"""
