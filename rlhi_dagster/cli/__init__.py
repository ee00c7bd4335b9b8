"""The ``rlhi`` command: one module a subcommand that has arguments of its own."""
