"""WildLlamaChat: the conversations with replies of the policy."""
