"""The ``rlhi`` command: what the Makefile and people ask about a profile's run, and labels and diversity of files outside of any run."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from rlhi_dagster import profiles
from rlhi_dagster.base import failures
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.cli import example_command, export_command, forget_command, persona_command, store_command, why_command
from rlhi_dagster.engines.questions import prompts_in
from rlhi_dagster.forgetting import marks
from rlhi_dagster.profiles import files
from rlhi_dagster.training import recipes as recipe_files

if TYPE_CHECKING:
    from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier


def months() -> str:
    """The partition range that the source's rows span, as ``dg launch --partition-range`` takes it."""
    return "...".join(profiles.source_months(profiles.current()))


def recipes() -> str:
    """The partition range of all recipes, in alphabetical order, as ``dg launch --partition-range`` takes it."""
    names = recipe_files.names(profiles.current().recipes)
    return f"{names[0]}...{names[-1]}"


def home() -> Path:
    """The Dagster instance of the outputs in use, made if it is not there: every other source and profile has its own."""
    folder = profiles.current().root / "dagster_home"
    folder.mkdir(parents=True, exist_ok=True)
    settings, shipped = folder / "dagster.yaml", profiles.ROOT / "data" / "dagster_home" / "dagster.yaml"
    if not settings.is_file():
        if not shipped.is_file():
            raise ValueError(f"{shipped}, the settings of the Dagster instance, was deleted: git restore {shipped}")
        shutil.copyfile(shipped, settings)
    return folder.absolute()


def profile(name: str | None) -> str:
    """The effective profile with where each value comes from and what it means."""
    shown = profiles.load(name) if name else profiles.current()
    return f"# outputs: {shown.root}\n{files.text(shown, shown.origins)}"


def summary() -> str:
    """The score table and the report's path, or without scores what came out of preference data; then what to train again."""
    lake = Lake(root=str(profiles.current().root / "lake"))
    return "\n".join([_scores_summary(lake), *(str(mark) for mark in marks.marks(lake))])


def _scores_summary(lake: Lake) -> str:
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
        ("rewrite_pairs", "drop_reasons"),
        ("reward_pairs", "drop_reasons"),
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
            # Of several reasons against a pair the first one counts, so that the counts add up.
            value = pl.col(column).list.first() if column == "drop_reasons" else pl.col(column)
            if name == "preference_pairs":
                value = pl.when("is_kept").then(value).otherwise(pl.format("dropped: {}", pl.col("drop_reasons").list.first()))
            counts = frame.group_by(value.fill_null("kept")).len().sort("len", descending=True).collect()
            lines += [f"  {value:<30}{count:>8,}  {count / rows:6.1%}" for value, count in counts.iter_rows()]
    return "\n".join([*lines, "", f"tables: {lake.root}"])


def label(location: str, out: Path, gold_file: Path | None) -> str:
    """Label the follow-ups of a source outside of any run, and compare them with given labels; return what came out."""
    from rlhi_dagster.feedback.labels import agreement, offline
    from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier

    offline.check_output(out, location)
    gold = agreement.read_gold(gold_file) if gold_file else None
    classifier = FeedbackClassifier.load()
    _tell(f"reading {location}")
    found = offline.read_follow_ups(location)
    _tell(found.account)
    labels = _labelled(found.frame, classifier)
    offline.write(labels, out)
    written = f"{out}: {len(labels):,} follow-ups labelled by {classifier.name}"
    if gold is None:
        return written
    return f"{written}\n\n{agreement.text(agreement.agreement(labels, gold, classifier.card))}"


def rates(location: str, given: Path | None) -> str:
    """Count the re-attempts of a source outside of any run, by given labels or the packaged classifier's; return what came out."""
    from rlhi_dagster.feedback.labels import agreement, offline
    from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier
    from rlhi_dagster.feedback.rates import paper_figures
    from rlhi_dagster.feedback.rates.shares import reattempt_rates

    gold = agreement.read_gold(given) if given else None
    _tell(f"reading {location}")
    found = offline.read_follow_ups(location)
    _tell(found.account)
    _tell(f"replaced in messages: {found.redacted}")
    if gold is None:
        classifier = FeedbackClassifier.load()
        gold = _labelled(found.frame, classifier)
        source = classifier.name
    else:
        source = str(given)
    conversations, labels = offline.given_labels(found, gold)
    counted = f"{len(conversations):,} conversations, {found.accepted - len(conversations):,} left out for follow-ups without a label"
    return f"labels: {source}; {counted}\n\n{paper_figures.text(reattempt_rates(conversations.lazy(), labels.lazy()))}"


def diversity(given: Sequence[str], context: str) -> str:
    """Compare the diversity of the prompts of corpora outside of any run; return what came out."""
    from rlhi_dagster.engines.embedding import MiniLM
    from rlhi_dagster.feedback.diversity import comparison, corpora

    found = []
    for corpus in given:
        found.append(corpora.read(comparison.settings_of(corpus), corpora.Context(context)))
        _tell(found[-1].account)
    _tell(f"embedding with {MiniLM.name}")
    return comparison.text(*comparison.compare(found, MiniLM().embed, MiniLM.name))


def plan(assets: Sequence[str], partition_range: str | None) -> str:
    """Forecast the model calls of assets; return a table."""
    from rlhi_dagster.cli import planning

    first, _, last = (partition_range or "").partition("...")
    return planning.text(planning.plan(assets, first or None, last or first or None))


def _labelled(follow_ups: pl.DataFrame, classifier: FeedbackClassifier) -> pl.DataFrame:
    from rlhi_dagster.base.progress import Progress
    from rlhi_dagster.engines.embedding import MiniLM
    from rlhi_dagster.feedback.labels import offline
    from rlhi_dagster.feedback.labels.follow_ups import ClassifierLabeller

    return offline.label_follow_ups(follow_ups, ClassifierLabeller(classifier, MiniLM().embed), Progress(_tell, "labelling"))


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="rlhi",
        description="Ask about a run (RLHI_PROFILE, RLHI_SOURCE and RLHI_DATA choose which), or label or compare files outside of any run.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("months", help="print the month range of the source, for dg launch --partition-range")
    commands.add_parser("recipes", help="print the range of all recipes, for dg launch --partition-range")
    commands.add_parser("home", help="print DAGSTER_HOME of the run, making it if needed")
    showing = commands.add_parser(
        "profile",
        help="print every setting, where its value comes from and what it means",
        description="The effective profile as YAML that is a profile itself. After each value: the file that says so (`default` if none "
        "does), and what the setting means. Profiles: " + ", ".join(profiles.available()) + ", or the path of a YAML file.",
    )
    showing.add_argument("profile", metavar="PROFILE", nargs="?", help="name or path; the one of RLHI_PROFILE if not given")
    commands.add_parser("summary", help="print the score table and where the report lies")
    export_command.add_parser(commands)
    labelling = commands.add_parser(
        "label",
        help="label the follow-ups of a log file, without a run",
        description="Label every follow-up of a source with the packaged classifier. Rows are accepted or quarantined as in a run.",
        epilog="The packaged classifier was trained on real WildChat follow-ups; on those it looks better than it is.",
    )
    labelling.add_argument("location", metavar="IN", help="Parquet or JSON lines: file, folder or glob of a kind that README.md lists")
    labelling.add_argument("out", metavar="OUT", type=Path, help="CSV or Parquet file, by its ending; replaced if it is there")
    labelling.add_argument(
        "--labels",
        metavar="GOLD.csv",
        type=Path,
        help="compare with these labels: conversation_hash, message_index, label, and second_label if there is one",
    )
    counting = commands.add_parser(
        "rates",
        help="count the re-attempts in a log file, without a run",
        description="Shares of re-attempts with feedback under every denominator, with intervals over users, beside the paper's: "
        "docs/analytics.md.",
    )
    counting.add_argument("location", metavar="IN", help="Parquet or JSON lines: file, folder or glob of a kind that README.md lists")
    counting.add_argument(
        "--labels", metavar="LABELS.csv", type=Path, help="count these (conversation_hash, message_index, label), not the classifier's"
    )
    comparing = commands.add_parser(
        "diversity",
        help="compare the diversity of the prompts of corpora, without a run",
        description="Mean pairwise cosine distance, Vendi score and cluster entropy of the distinct prompts of corpora: docs/diversity.md.",
    )
    comparing.add_argument(
        "corpora",
        metavar="[NAME=]LOCATION",
        nargs="+",
        help="logs of a kind that README.md lists, HH-RLHF or HelpSteer2, told by their columns: file, folder, glob or hf:// path",
    )
    comparing.add_argument(
        "--context",
        choices=["opening_request", "conversation"],
        default="opening_request",
        help="what of a conversation counts: its first user message, or everything before its last reply",
    )
    planning = commands.add_parser(
        "plan",
        help="say what materializing assets would ask models for, without asking",
        description="Requests that the response store lacks, tokens, time at the measured rate, and cost, from the tables as they are now.",
    )
    planning.add_argument("assets", metavar="ASSET", nargs="*", help="names of assets; all that call models if none is given")
    planning.add_argument("--partition-range", metavar="FIRST...LAST", help="months or recipes; all if not given")
    store_command.add_parser(commands)
    forget_command.add_parser(commands)
    why_command.add_parser(commands)
    persona_command.add_parser(commands)
    example_command.add_parser(commands)
    given = parser.parse_args()
    try:
        with prompts_in(profiles.current().prompts):
            run(given)
    except ValueError as error:
        sys.exit(f"rlhi: {failures.message(error)}")
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"rlhi: {_unusable(error)}")


def run(given: argparse.Namespace) -> None:
    """Do what the command line says."""
    match given.command:
        case "store":
            print(store_command.run(given, _tell))
        case "persona":
            print(persona_command.run(given))
        case "why":
            print(why_command.run(given))
        case "example":
            print(example_command.run(given))
        case "forget":
            print(forget_command.run(given))
        case "months":
            print(months())
        case "recipes":
            print(recipes())
        case "home":
            print(home())
        case "profile":
            print(profile(given.profile))
        case "summary":
            print(summary())
        case "export":
            print(export_command.run(given, Lake(root=str(profiles.current().root / "lake")), profiles.current()))
        case "label":
            print(label(given.location, given.out, given.labels))
        case "rates":
            print(rates(given.location, given.labels))
        case "plan":
            print(plan(given.assets, given.partition_range))
        case "diversity":
            print(diversity(given.corpora, given.context))


def _unusable(error: OSError) -> str:
    """What is said of a path that cannot be used; where outputs lie or are to lie, which variable leads there."""
    path, root = Path(error.filename).absolute(), profiles.current().root
    leads = path.is_relative_to(root) or root.is_relative_to(path)
    return f"{path}: {error.strerror}" + (f"; outputs go to {root}, which RLHI_DATA can change" if leads else "")


if __name__ == "__main__":
    main()
