"""The engine for servers of OpenAI's chat completions: docs/decisions/openai_engine.md has its modules from the outside in."""
