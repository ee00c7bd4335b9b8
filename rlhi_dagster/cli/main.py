"""The ``rlhi`` command: what the Makefile and people ask about a profile's run, and labels and diversity of files outside of any run."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import rlhi_dagster
from rlhi_dagster.cli.commands import COMMANDS
from rlhi_dagster.cli.later import later

if TYPE_CHECKING:
    import polars as pl

    from rlhi_dagster import profiles
    from rlhi_dagster.base import escapes, failures, private
    from rlhi_dagster.base.lake import Lake
    from rlhi_dagster.cli import (
        alpaca_command,
        compare_command,
        compare_reports_command,
        dagster_home,
        evaluate_command,
        example_command,
        export_command,
        forget_command,
        inspect_command,
        logs_command,
        persona_command,
        ranges,
        refresh_command,
        store_command,
        summary_command,
        verify_command,
        why_command,
    )
else:
    pl = later("polars")
    profiles = later("rlhi_dagster.profiles")
    escapes = later("rlhi_dagster.base.escapes")
    private = later("rlhi_dagster.base.private")
    failures = later("rlhi_dagster.base.failures")
    alpaca_command = later("rlhi_dagster.cli.alpaca_command")
    compare_command = later("rlhi_dagster.cli.compare_command")
    compare_reports_command = later("rlhi_dagster.cli.compare_reports_command")
    dagster_home = later("rlhi_dagster.cli.dagster_home")
    evaluate_command = later("rlhi_dagster.cli.evaluate_command")
    example_command = later("rlhi_dagster.cli.example_command")
    export_command = later("rlhi_dagster.cli.export_command")
    forget_command = later("rlhi_dagster.cli.forget_command")
    inspect_command = later("rlhi_dagster.cli.inspect_command")
    logs_command = later("rlhi_dagster.cli.logs_command")
    persona_command = later("rlhi_dagster.cli.persona_command")
    ranges = later("rlhi_dagster.cli.ranges")
    refresh_command = later("rlhi_dagster.cli.refresh_command")
    store_command = later("rlhi_dagster.cli.store_command")
    summary_command = later("rlhi_dagster.cli.summary_command")
    verify_command = later("rlhi_dagster.cli.verify_command")
    why_command = later("rlhi_dagster.cli.why_command")

if TYPE_CHECKING:
    from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier

_CODES = "Exit code: 0 done, 1 failed, 2 wrong arguments, 3 no row of the source was accepted, so nothing came out."
"""2 is argparse's, 3 that of ``offline.NothingAcceptedError``."""


def profile(name: str | None) -> str:
    """The effective profile with where each value comes from and what it means."""
    from rlhi_dagster.profiles import files

    shown = profiles.load(name) if name else profiles.current()
    return f"# outputs: {shown.root}\n{files.text(shown, shown.origins)}"


def summary() -> str:
    """The recipes' scores, or without scores what came out of preference data; where the report is; then what to train again."""
    return escapes.lines(summary_command.lines(profiles.current(), _lake()))


def scores_as_json() -> str:
    """All rows of ``scores``, as JSON."""
    return json.dumps(_lake().scan("scores").collect().to_dicts(), indent=1, default=str)


def _lake() -> Lake:
    from rlhi_dagster.base.lake import Lake

    return Lake(root=str(profiles.current().root / "lake"))


def label(location: str, out: Path, gold_file: Path | None, *, with_text: bool = False) -> str:
    """Label the follow-ups of a source outside of any run, and compare them with given labels; return what came out.

    Args:
        location: The source.
        out: File for the labels.
        gold_file: Labels to compare with.
        with_text: Write the request, the reply and the follow-up beside each label.
    """
    from rlhi_dagster.feedback.labels import agreement, offline
    from rlhi_dagster.feedback.labels.classifier import FeedbackClassifier

    offline.check_output(out, location)
    gold = agreement.read_gold(gold_file) if gold_file else None
    classifier = FeedbackClassifier.load()
    _tell(f"reading {location}")
    found = offline.read_follow_ups(location)
    _tell(found.account)
    labels = _labelled(found.frame, classifier)
    offline.write(labels.join(offline.texts(found.frame), on=list(agreement.KEY)) if with_text else labels, out)
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


def plan(assets: Sequence[str], partition_range: str | None, difference: float | None, *, as_json: bool = False) -> str:
    """Forecast the model calls of assets and what the evaluation can find, or only the latter for a given difference; return tables.

    ``as_json`` gives the forecasts alone, for programs.
    """
    from rlhi_dagster.cli import claims, planning
    from rlhi_dagster.evaluation.power import WORTH_FINDING

    if difference is not None:
        return claims.text(profiles.current(), difference)
    from rlhi_dagster import definitions

    first, _, last = (partition_range or "").partition("...")
    plans = definitions.plan(profiles.current(), assets, first or None, last or first or None)
    if as_json:
        return json.dumps(planning.records(plans), indent=1)
    return f"{planning.text(plans)}\n\n{claims.text(profiles.current(), WORTH_FINDING)}"


def _labelled(follow_ups: pl.DataFrame, classifier: FeedbackClassifier) -> pl.DataFrame:
    from rlhi_dagster.base.progress import Progress
    from rlhi_dagster.engines.embedding import MiniLM
    from rlhi_dagster.feedback.labels import offline
    from rlhi_dagster.feedback.labels.follow_ups import ClassifierLabeller

    return offline.label_follow_ups(follow_ups, ClassifierLabeller(classifier, MiniLM().embed), Progress(_tell, "labelling"))


def _show(found: str | Path) -> None:
    """Print what came out; nothing in it can make the terminal do anything."""
    print(escapes.visible(str(found)))


def _tell(line: str) -> None:
    print(escapes.visible(line), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints show arguments, which may be names of files, without what a terminal would obey."""

    def error(self, message: str) -> NoReturn:
        super().error(escapes.line(message))


def parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        wanted: The command that is wanted, which alone is loaded; of the others only the line in the list is there. All if not given.
    """
    whole = _Parser(
        prog="rlhi",
        description="Ask about a run (RLHI_PROFILE, RLHI_SOURCE and RLHI_DATA choose which), or label or compare files outside of any run.",
    )
    whole.add_argument("--version", action="version", version=f"rlhi {rlhi_dagster.__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        if wanted not in (None, name):
            commands.add_parser(name, help=command.told)
            continue
        if command.module:
            importlib.import_module(f"rlhi_dagster.cli.{command.module}").add_parser(commands)
        else:
            _PLAIN[name](commands.add_parser(name, help=command.told, description=f"{command.told[0].upper()}{command.told[1:]}."))
        made = commands.choices[name]
        made.epilog = " ".join(filter(None, [made.epilog, f"Example: {command.example}"]))
    return whole


def _profile_arguments(showing: argparse.ArgumentParser) -> None:
    showing.description = (
        "The effective profile as YAML that is a profile itself. After each value: the file that says so (`default` if none "
        f"does), and what the setting means. Profiles: {', '.join(profiles.available())}, or the path of a YAML file."
    )
    showing.add_argument("profile", metavar="PROFILE", nargs="?", help="name or path; the one of RLHI_PROFILE if not given")


def _label_arguments(labelling: argparse.ArgumentParser) -> None:
    labelling.description = "Label every follow-up of a source with the packaged classifier. Rows are accepted or quarantined as in a run."
    labelling.epilog = f"{_CODES} The packaged classifier was trained on real WildChat follow-ups; on those it looks better than it is."
    labelling.add_argument("location", metavar="IN", help="file, folder, glob or hf:// path of a kind in docs/reference/logs.md")
    labelling.add_argument("out", metavar="OUT", type=Path, help="CSV or Parquet file, by its ending; replaced if it is there")
    labelling.add_argument("--text", action="store_true", help="add the request, the reply and the follow-up, after redaction")
    labelling.add_argument(
        "--labels",
        metavar="GOLD.csv",
        type=Path,
        help="compare with these labels: conversation_hash, message_index, label, and second_label if there is one",
    )


def _rates_arguments(counting: argparse.ArgumentParser) -> None:
    counting.description = (
        "Shares of re-attempts with feedback under every denominator, with intervals over users, beside the paper's: "
        "docs/concepts/analytics.md."
    )
    counting.epilog = _CODES
    counting.add_argument("location", metavar="IN", help="file, folder, glob or hf:// path of a kind in docs/reference/logs.md")
    counting.add_argument(
        "--labels", metavar="LABELS.csv", type=Path, help="count these (conversation_hash, message_index, label), not the classifier's"
    )


def _diversity_arguments(comparing: argparse.ArgumentParser) -> None:
    comparing.description = (
        "Mean pairwise cosine distance, Vendi score and cluster entropy of the distinct prompts of corpora: docs/concepts/diversity.md."
    )
    comparing.add_argument(
        "corpora",
        metavar="[NAME=]LOCATION",
        nargs="+",
        help="logs of a kind in docs/reference/logs.md, HH-RLHF or HelpSteer2, told by their columns: file, folder, glob or hf:// path",
    )
    comparing.add_argument(
        "--context",
        choices=["opening_request", "conversation"],
        default="opening_request",
        help="what of a conversation counts: its first user message, or everything before its last reply",
    )


def _plan_arguments(planning: argparse.ArgumentParser) -> None:
    planning.description = (
        "Requests that the response store lacks, tokens, time at the measured rate, and cost, from the tables as they are now; "
        "then which difference between two recipes the evaluation items can detect, and how many a difference of 0.05 needs."
    )
    planning.add_argument("assets", metavar="ASSET", nargs="*", help="names of assets; all that call models if none is given")
    planning.add_argument("--partition-range", metavar="FIRST...LAST", help="months or recipes; all if not given")
    shown = planning.add_mutually_exclusive_group()
    shown.add_argument(
        "--difference", metavar="D", type=float, help="say only how many requests and users a claim of this difference needs, such as 0.03"
    )
    shown.add_argument("--json", action="store_true", help="the forecasts alone, as JSON")


def _summary_arguments(summing: argparse.ArgumentParser) -> None:
    summing.add_argument("--json", action="store_true", help="all rows of the table `scores` as JSON")


def _no_arguments(_: argparse.ArgumentParser) -> None:
    pass


_PLAIN: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "label": _label_arguments,
    "rates": _rates_arguments,
    "diversity": _diversity_arguments,
    "profile": _profile_arguments,
    "plan": _plan_arguments,
    "summary": _summary_arguments,
    "home": _no_arguments,
    "months": _no_arguments,
    "recipes": _no_arguments,
}
"""Commands whose arguments are here."""


def main() -> None:
    """Do what the command line says; told to stop (Ctrl-C), end with the code that shells expect."""
    try:
        _main()
    except KeyboardInterrupt:
        _tell("rlhi: stopped")
        sys.exit(130)


def _main() -> None:
    given = parser(next((word for word in sys.argv[1:] if not word.startswith("-")), "")).parse_args()
    private.only_owner()
    from rlhi_dagster.engines.questions import prompts_in

    try:
        with prompts_in(profiles.current().prompts):
            run(given)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except BaseException as error:
        if (told := _told(error)) is None:
            raise
        if code := getattr(error, "exit_code", None):
            _tell(f"rlhi: {told}")
            sys.exit(code)
        sys.exit(f"rlhi: {told}")


def run(given: argparse.Namespace) -> None:
    """Do what the command line says."""
    match given.command:
        case "verify":
            _show(verify_command.run(_tell))
        case "store":
            _show(store_command.run(given, _tell))
        case "persona":
            _show(persona_command.run(given))
        case "evaluate":
            _show(evaluate_command.run(given))
        case "why":
            _show(why_command.run(given))
        case "compare":
            _show(compare_command.run(given))
        case "compare-reports":
            _show(compare_reports_command.run(given))
        case "example":
            print(example_command.run(given))  # its colours are ours, and what they colour is made visible there
        case "forget":
            _show(forget_command.run(given))
        case "months":
            _show(ranges.written(ranges.months(ranges.home_in_use(), _tell)))
        case "recipes":
            _show(ranges.written(ranges.recipes()))
        case "refresh":
            refresh_command.run(given, _tell)
        case "home":
            print(dagster_home.home())  # as it is, for DAGSTER_HOME
        case "profile":
            _show(profile(given.profile))
        case "summary":
            _show(scores_as_json() if given.json else summary())
        case "export":
            _show(export_command.run(given, _lake(), profiles.current()))
        case "alpaca-lc":
            _show(alpaca_command.run(given))
        case "inspect":
            _show(inspect_command.run(given))
        case "logs":
            _show(logs_command.run(given, _tell))
        case "label":
            _show(label(given.location, given.out, given.labels, with_text=given.text))
        case "rates":
            _show(rates(given.location, given.labels))
        case "plan":
            _show(plan(given.assets, given.partition_range, given.difference, as_json=given.json))
        case "diversity":
            _show(diversity(given.corpora, given.context))


def _told(error: BaseException) -> str | None:
    """What is said of an error, fit for the terminal; ``None`` if it is not one that can be expected."""
    if isinstance(error, store_command.UnsoundStoreError | verify_command.DamagedOutputsError):  # a list, a line each
        return escapes.visible(str(error))
    if isinstance(error, ValueError):
        return escapes.line(failures.message(error))
    if isinstance(error, OSError) and error.filename is not None:
        return escapes.line(_unusable(error))
    return failures.sentence(error)


def _unusable(error: OSError) -> str:
    """What is said of a path that cannot be used; where outputs lie or are to lie, which variable leads there."""
    path, root = Path(error.filename).absolute(), profiles.current().root
    leads = path.is_relative_to(root) or root.is_relative_to(path)
    return f"{path}: {error.strerror}" + (f"; outputs go to {root}, which RLHI_DATA can change" if leads else "")


if __name__ == "__main__":
    main()
