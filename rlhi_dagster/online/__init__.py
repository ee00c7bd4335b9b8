"""Online rounds: candidates of the policy as it is, ranked and trained on, round by round."""
