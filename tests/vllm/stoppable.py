"""A worker as the tests stop it: ``python tests/vllm/stoppable.py MODEL_FOLDER STORE``; says `busy` when it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhi_dagster.engines.ask import StoppedError, fulfil
from rlhi_dagster.engines.base import ChatRequest, Sampling
from rlhi_dagster.engines.loading import chat_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.settings import VllmSettings
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.workers.answering import Stop


def main(folder: str, store: Path) -> None:
    stop = Stop(lambda line: None)
    model, sampling = ModelRef("town", "r1", folder), Sampling(2.0, 1.0, 200, 7)
    settings = VllmSettings(dtype="float32", chunk_size=100, max_context_tokens=1024)
    requests = [ChatRequest([{"role": "user", "content": "How do I cook rice?"}], index) for index in range(5000)]
    by_key = {request.key(model, sampling, settings.identity): request for request in requests}
    handed_out = 0

    def answers(calls: Iterator[tuple[str, Any]]) -> Any:
        def counted() -> Iterator[tuple[str, Any]]:
            nonlocal handed_out
            for call in calls:
                handed_out += 1
                yield call

        return engine.answer(counted(), sampling)

    engine = chat_engine(model, settings)
    error = ""
    try:
        fulfil(
            by_key,
            ResponseStore(store, "chat", model.identity),
            answers,
            lambda request: request.settings(sampling, settings.identity),
            chunk_size=settings.chunk_size,
            on_progress=lambda standing: sys.stdout.write("busy\n") and sys.stdout.flush(),
            is_stopping=stop,
        )
    except StoppedError as stopped:
        error = f"StoppedError: {stopped}"
    sys.stdout.write(json.dumps({"error": error, "handed_out": handed_out, "wanted": len(by_key)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
