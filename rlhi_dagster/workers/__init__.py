"""Programs that assets start through Dagster Pipes: generation, scoring, embedding and training.

What belongs here: reading a job from Pipes, running it, reporting progress and figures. Heavy libraries are imported here and in
``engines/`` only, and only once there is work to do. Chat text never reaches a log.
"""
