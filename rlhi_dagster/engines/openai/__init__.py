"""The engine for servers of OpenAI's chat completions: docs/openai_engine.md has its modules from the outside in."""
