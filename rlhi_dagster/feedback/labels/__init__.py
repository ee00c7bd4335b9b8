"""What a follow-up says about the reply before it: the classifier, the chat model, and how good they are."""
