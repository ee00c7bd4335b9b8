"""The sample town: simulated users with hidden, known style preferences, in WildChat-1M's column schema.

What belongs here: everything made up for the bundled sample (topics, styles, users, dialogues, broken rows, arithmetic problems) and the
truth about it. What does not: any step of the method. The truth reaches only tests, benchmarks and the judge
named ``town``.
"""
