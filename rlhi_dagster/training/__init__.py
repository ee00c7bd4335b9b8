"""From preference pairs to checkpoints: recipes, pair sets, settings. The trainers themselves run in ``workers/``."""
