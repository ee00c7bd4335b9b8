"""How often users re-attempt, and the paper's figures."""
