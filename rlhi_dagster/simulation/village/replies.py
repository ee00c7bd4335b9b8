"""Replies of the village's assistant: written once by a language model, kept as data, and read from then on.

What belongs here: the file of replies, and writing what it lacks. What does not: what is asked (``logs.py``), and running a model
(``engines``). A chunk of answers is a segment of a response store, so that a kill costs one chunk at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import polars as pl

from rlhi_dagster.engines.ask import fulfil
from rlhi_dagster.engines.base import ChatAnswer, ChatCalls, ChatEngine, ChatRequest, Sampling
from rlhi_dagster.engines.loading import chat_engine
from rlhi_dagster.engines.models import ModelRef, digest_of
from rlhi_dagster.engines.read import read_chat
from rlhi_dagster.engines.settings import EngineSettings, OpenAISettings, TransformersSettings
from rlhi_dagster.simulation.village.logs import Village
from rlhi_dagster.simulation.village.mending import whole
from rlhi_dagster.store.responses import ResponseStore

SAMPLING = Sampling(temperature=0.6, top_p=0.9, max_new_tokens=100, seed=11)
"""Temperature and top-p are the paper's; the limit is ours: it is part of the village, whose users like what can be said
in 75 words."""
_CHUNK = 32
SCHEMA = pl.Schema({"request_id": pl.String(), "reply": pl.String(), "has_ended": pl.Boolean()})
FILE, ORIGIN = "replies.parquet", "replies.json"


def request_id(request: ChatRequest) -> str:
    """Digest of what is asked, whoever answers."""
    return digest_of("village", request.messages, request.sample_index)


def read(folder: Path) -> Callable[[ChatRequest], str | None]:
    """The replies in ``folder``; of an empty one there are none.

    The assistant's service ends a reply that its limit cut at the last whole sentence or line, so that nobody sees half of one.
    """
    file = folder / FILE
    frame = pl.read_parquet(file) if file.exists() else pl.DataFrame(schema=SCHEMA)
    known = {name: reply if has_ended else whole(reply) for name, reply, has_ended in frame.iter_rows()}
    return lambda request: known.get(request_id(request))


def engine_settings(server: str | None) -> EngineSettings:
    """How the model is run: behind a server of chat completions, if there is one, else here."""
    if server is None:
        return TransformersSettings(device="cpu", dtype="float32", batch_size=64, chunk_size=_CHUNK)
    return OpenAISettings(base_url=server, max_concurrency=_CHUNK, chunk_size=_CHUNK)


def write_missing(
    folder: Path, model: ModelRef, engine: EngineSettings, store: Path, build: Callable[[], Village], report: Callable[[str], None]
) -> None:
    """Write replies until ``build`` lacks none; each round of it asks for those that the round before made possible.

    Args:
        folder: Where the file of replies is; new ones are added to it, and what wrote them stands in a file beside it.
        model: Who writes.
        engine: How it is run.
        store: Folder of a response store, for what is written until a round ends.
        build: The village as far as the replies in ``folder`` go.
        report: Called with lines of progress.

    Raises:
        RuntimeError: A request got no answer, for a reason that is told; what was answered is kept.
    """
    answers, loaded = ResponseStore(store, "chat", model.identity), list[ChatEngine]()

    def answer(calls: ChatCalls) -> Iterator[list[tuple[str, ChatAnswer]]]:
        loaded[:] = loaded or [chat_engine(model, engine)]
        return loaded[0].answer(calls, SAMPLING)

    while missing := build().missing:
        keyed = {request.key(model, SAMPLING, engine.identity): request for request in missing}
        report(f"{len(keyed):,} replies to write")
        fulfil(
            keyed,
            answers,
            answer,
            lambda request: request.settings(SAMPLING, engine.identity),
            chunk_size=engine.chunk_size,
            on_progress=lambda standing: report(f"  {standing.stats.answered:,} of {standing.missing:,}, {standing.stats.seconds:.0f} s"),
        )
        _add(folder, list(keyed.values()), read_chat(list(keyed), answers))
    origin = {"model": model.name, "revision": model.revision, "sampling": asdict(SAMPLING), "engine": engine.model_dump(mode="json")}
    (folder / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n")


def _add(folder: Path, requests: Sequence[ChatRequest], answers: Sequence[ChatAnswer]) -> None:
    if failed := [answer.error for answer in answers if answer.text is None]:
        raise RuntimeError(f"{len(failed):,} replies were not written, the first because of {failed[0]}; run it again")
    rows = [
        {"request_id": request_id(request), "reply": str(answer.text).strip(), "has_ended": answer.finish_reason == "stop"}
        for request, answer in zip(requests, answers, strict=True)
    ]
    file = folder / FILE
    before = [pl.read_parquet(file)] if file.exists() else []
    found = pl.concat([*before, pl.DataFrame(rows, schema=SCHEMA)]).unique("request_id", keep="first").sort("request_id")
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    found.write_parquet(partial, compression="zstd", compression_level=19)
    partial.rename(file)
