"""What is known of a user's wishes at a moment, and which messages say so (RLHI section 3).

What belongs here: persona lines with their evidence and validity, who writes them, users' corrections of them, and the persona shown at a
moment. What does not: finding wishes in a message (``feedback.aspects``) and whether a message is feedback at all
(``feedback.labels.classifier``).

Two rules hold everywhere: a line cites the messages that support it, and a persona used at time t is built only from messages
before t. An empty persona is legal.
"""
