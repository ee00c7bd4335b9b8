"""The sample town: users with four binary style preferences who speak a small language that a grammar writes and reads exactly.

What belongs here: everything made up for the bundled sample (topics, styles, users, dialogues, broken rows, arithmetic problems) and the
truth about it. What does not: any step of the method. The truth reaches only tests, benchmarks and the judge named ``town``.
"""
