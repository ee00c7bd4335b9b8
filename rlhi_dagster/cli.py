"""The ``rlhi`` command: what the Makefile and people ask about a profile's run."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.conversations.sources import month_counts
from rlhi_dagster.lake import Lake


def months() -> str:
    """The partition range that the source's rows span, as ``dg launch --partition-range`` takes it."""
    profile = profiles.current()
    counted = [month for month in month_counts(profiles.source_settings(profile)) if month >= profile.first_month]
    if not counted:
        raise profiles.ProfileError(f"source {profile.source.name} has no rows from {profile.first_month} on")
    return f"{min(counted)}...{max(counted)}"


def home() -> Path:
    """The Dagster instance of the outputs in use, made if it is not there: every other source and profile has its own."""
    folder = profiles.data_root() / "dagster_home"
    folder.mkdir(parents=True, exist_ok=True)
    settings, shipped = folder / "dagster.yaml", profiles.ROOT / "data" / "dagster_home" / "dagster.yaml"
    if not settings.is_file():
        shutil.copyfile(shipped, settings)
    return folder.absolute()


def summary() -> str:
    """The score table and the report's path, or for a run without scores what came out of its preference data."""
    lake = Lake(root=str(profiles.data_root() / "lake"))
    report = lake.artefact_path("report") / "index.html"
    if not report.is_file():
        return _preference_summary(lake)
    scores = lake.scan("scores").collect().sort("benchmark", "metric", "recipe")
    lines = [f"{'benchmark':<12}{'metric':<32}{'recipe':<30}{'value':>8}  95 % interval        n  judge"]
    for row in scores.to_dicts():
        low, high = row["ci_low"], row["ci_high"]
        interval = (
            "–" if low is None else f"[{low:+.3f}, {high:+.3f}]" if row["metric"].endswith("_minus_base") else f"[{low:.3f}, {high:.3f}]"
        )
        lines.append(
            f"{row['benchmark']:<12}{row['metric']:<32}{row['recipe']:<30}{row['value']:>8.3f}  {interval:<18}{row['n']:>5}  {row['judge']}"
        )
    return "\n".join([*lines, "", f"report: {report}"])


def _preference_summary(lake: Lake) -> str:
    lines = []
    for name, column in (
        ("conversations", None),
        ("quarantine", "reason"),
        ("turns", None),
        ("users", "split"),
        ("feedback_labels", "label"),
        ("wildllamachat", None),
        ("rewrite_pairs", "drop_reason"),
        ("reward_pairs", "drop_reason"),
        ("preference_pairs", "source"),
    ):
        try:
            frame = lake.scan(name)
        except ValueError:
            lines.append(f"{name:<20} not materialized")
            continue
        rows = frame.select(pl.len()).collect().item()
        lines.append(f"{name:<20}{rows:>10,}")
        if column:
            counts = frame.group_by(pl.col(column).fill_null("kept")).len().sort("len", descending=True).collect()
            lines += [f"  {value:<30}{count:>8,}  {count / rows:6.1%}" for value, count in counts.iter_rows()]
    return "\n".join([*lines, "", f"tables: {lake.root}"])


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="rlhi", description="Ask about a run. RLHI_PROFILE, RLHI_SOURCE and RLHI_DATA choose which one.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("months", help="print the month range of the source, for dg launch --partition-range")
    commands.add_parser("home", help="print DAGSTER_HOME of the run, making it if needed")
    commands.add_parser("summary", help="print the score table and where the report lies")
    export = commands.add_parser("export", help="write every table into one DuckDB file for SQL")
    export.add_argument("file", type=Path, help="the DuckDB file, replaced if it is there")
    given = parser.parse_args()
    try:
        match given.command:
            case "months":
                print(months())
            case "home":
                print(home())
            case "summary":
                print(summary())
            case "export":
                names = Lake(root=str(profiles.data_root() / "lake")).export_duckdb(given.file)
                print(f"{given.file}: {', '.join(names)}")
    except ValueError as error:
        sys.exit(f"rlhi: {error}")


if __name__ == "__main__":
    main()
