"""Reasoning: erroneous solutions, a simulated user's remark, and the corrected solution."""
