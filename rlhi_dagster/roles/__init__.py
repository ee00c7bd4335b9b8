"""Who plays each role under a profile: the step from its settings to a labeller, writer, rewriter or judge that the stages call."""
