"""The village: simulated users who write English, have hidden preferences that code can check, and talk to a real language model.

What belongs here: everything made up for it (topics, forms, preferences, wordings, habits), the checkers, the replies that the model wrote
once, and the truth. What does not: any step of the method. The truth reaches only tests, benchmarks and the judge named ``village``.
"""
