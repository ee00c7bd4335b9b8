"""Write the sample: ``python -m rlhi_dagster.simulation.town --out data/sample`` (see ``--help``)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import polars as pl

from rlhi_dagster.simulation.town import arithmetic, corpus
from rlhi_dagster.simulation.town.logs import TownSettings, build
from rlhi_dagster.simulation.wildchat import CLICKS

DIALOGUES = 9_000
PROBLEMS = 400


def write(out: Path, settings: TownSettings, dialogues: int = DIALOGUES, problems: int = PROBLEMS) -> None:
    """Write logs, feedback, corpus and problems to ``out`` and the truth to ``out/truth``; the same settings give the same bytes."""
    (out / "truth").mkdir(parents=True, exist_ok=True)
    town = build(settings)
    town.logs.write_parquet(out / "wildchat.parquet", compression="zstd", compression_level=19)
    clicked = pl.DataFrame([click.row() for click in town.clicks], schema=CLICKS)
    clicked.write_parquet(out / "wildchat_feedback.parquet", compression="zstd", compression_level=19)
    town.preferences.write_parquet(out / "truth" / "preferences.parquet", compression="zstd")
    town.labels.write_parquet(out / "truth" / "labels.parquet", compression="zstd")
    noise = [(click.conversation_id, click.message_index, click.kind.value, click.is_noise) for click in town.clicks]
    told = pl.DataFrame(noise, schema=["conversation_hash", "message_index", "kind", "is_noise"], orient="row")
    told.write_parquet(out / "truth" / "clicks.parquet", compression="zstd")
    corpus.build(dialogues, settings.seed + 1).write_parquet(out / "corpus.parquet", compression="zstd", compression_level=19)
    records = arithmetic.prm800k(problems, settings.seed + 2)
    (out / "prm800k.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def main() -> None:
    """Parse the command line and write the sample."""
    parser = argparse.ArgumentParser(prog="python -m rlhi_dagster.simulation.town", description="Simulate a town's chat logs, of any size.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=TownSettings().seed, help="determines every byte (default %(default)s)")
    parser.add_argument("--users", type=int, default=TownSettings().users, help="number of users (default %(default)s)")
    parser.add_argument("--months", type=int, default=TownSettings().months, help="months from 2023-04 on (default %(default)s)")
    parser.add_argument("--dialogues", type=int, default=DIALOGUES, help="size of the pre-training corpus (default %(default)s)")
    given = parser.parse_args()
    write(given.out, TownSettings(seed=given.seed, users=given.users, months=given.months), given.dialogues)


if __name__ == "__main__":
    main()
