"""Worker: embed texts with the sentence encoder through the response store.

Job (Pipes extras): ``store``, ``texts`` (Parquet of ``key, text``), ``chunk_size``. Reports ``CallStats`` as a custom message.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import polars as pl
from dagster_pipes import PipesContext, open_dagster_pipes

from rlhi_dagster.base.owned import work_for
from rlhi_dagster.base.progress import Progress
from rlhi_dagster.engines import forecast
from rlhi_dagster.engines.ask import StoppedError
from rlhi_dagster.engines.embedding import MiniLM
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.workers.answering import Stop
from rlhi_dagster.workers.expected import told
from rlhi_dagster.workers.parent import end_with_parent


def main() -> None:
    """Run the job that Pipes hands over."""
    end_with_parent()
    with open_dagster_pipes(), told():
        pipes = PipesContext.get()
        work_for(pipes.extras)
        job, stop = pipes.extras, Stop(pipes.log.warning)
        texts = pl.read_parquet(job["texts"])
        store = ResponseStore(Path(job["store"]), "embedding", MiniLM.name)
        store.sweep()
        missing = texts.join(store.missing(texts["key"]).to_frame("key"), on="key", how="semi")
        # By key, so that every chunk has texts of all lengths and the progress is even; the encoder sorts a chunk by length.
        missing = missing.unique("key").sort("key")
        encoder, report, started = MiniLM(), Progress(pipes.log.info, MiniLM.name), time.monotonic()
        done = 0
        for chunk in missing.iter_slices(job["chunk_size"]):
            if stop():
                raise StoppedError(f"stopped: {done:,} of {len(missing):,} texts embedded and kept; launch again to continue")
            vectors = encoder.embed(chunk["text"].to_list())
            store.append(pl.DataFrame({"key": chunk["key"], "vector": vectors.tolist()}))
            done += len(chunk)
            report(done, len(missing))
        stats = CallStats(
            requests=len(texts),
            cached=len(texts) - done,
            answered=done,
            prompt_characters=int(missing["text"].str.len_chars().sum()),
            seconds=time.monotonic() - started,
        )
        forecast.note(Path(job["store"]), store.kind, store.model, MiniLM.name, stats)
        pipes.report_custom_message(asdict(stats))


if __name__ == "__main__":
    main()
