"""Write the village: ``python -m rlhi_dagster.simulation.village --out data/village`` (see ``--help``)."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.sources import ModelSource
from rlhi_dagster.simulation.village import replies
from rlhi_dagster.simulation.village.logs import Village, VillageSettings, build


def write(out: Path, settings: VillageSettings, given: Path) -> Village:
    """Write logs and feedback to ``out`` and the truth to ``out/truth``; the same settings and replies give the same rows.

    Args:
        out: Folder to write to.
        settings: Of the village.
        given: Folder with the replies.

    Raises:
        ValueError: Replies are missing.
    """
    village = build(settings, replies.read(given))
    if village.missing:
        raise ValueError(f"{given / replies.FILE} lacks {len(village.missing):,} replies; --model FOLDER writes them")
    (out / "truth").mkdir(parents=True, exist_ok=True)
    tables = {"wildchat": village.logs, "wildchat_feedback": village.clicks, "truth/preferences": village.preferences}
    tables |= {"truth/conversations": village.conversations, "truth/labels": village.labels, "truth/clicks": village.told}
    for name, table in tables.items():
        table.write_parquet(out / f"{name}.parquet", compression="zstd", compression_level=19)
    return village


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    """Parse the command line; write replies that are missing, if a model is given, and then the village."""
    parser = argparse.ArgumentParser(prog="python -m rlhi_dagster.simulation.village", description="Simulate a village's chat logs.")
    defaults = VillageSettings()
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--replies", type=Path, help="folder with replies.parquet (default: the one of --out)")
    parser.add_argument("--model", help="folder of weights with a manifest, such as the artefact `policy`: write missing replies")
    parser.add_argument("--served", metavar="NAME@VERSION", help="the same by a model behind --server; the version is your label")
    parser.add_argument("--server", metavar="URL", help="of chat completions, up to and with /v1")
    parser.add_argument("--store", type=Path, help="where replies are kept until a round of them is complete (default: OUT/.responses)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="determines everything but the replies (default %(default)s)")
    parser.add_argument("--users", type=int, default=defaults.users, help="number of users; fewer are the first ones (default %(default)s)")
    given = parser.parse_args()
    settings, folder = replace(defaults, seed=given.seed, users=given.users), given.replies or given.out
    if given.model or given.served:
        served = ModelSource(served=given.served).ref(Path()) if given.served else None
        model = served or ModelRef.from_manifest(Path(given.model))
        store, engine = given.store or given.out / ".responses", replies.engine_settings(given.server)
        replies.write_missing(folder, model, engine, store, lambda: build(settings, replies.read(folder)), _report)
    write(given.out, settings, folder)


if __name__ == "__main__":
    main()
