"""The commands of ``rlhi``: what each is for, an example, and the module that has its arguments.

What belongs here: what ``rlhi --help`` shows, without loading a command. What does not: arguments and what is done.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command.

    Attributes:
        told: One line of ``rlhi --help``.
        example: A whole command line.
        module: Of this package, with ``add_parser``; ``None`` if ``main`` has the arguments.
    """

    told: str
    example: str
    module: str | None = None


COMMANDS = {
    "inspect": Command(
        "say what a log file or folder holds and what would be rejected, before any run", "rlhi inspect logs/", "inspect_command"
    ),
    "logs": Command(
        "write a page on what a log file holds: complaints, topics, users, labels to correct, pairs that would follow",
        "rlhi logs support.jsonl --out support.html",
        "logs_command",
    ),
    "label": Command("label the follow-ups of a log file, without a run", "rlhi label logs.parquet labels.csv --text"),
    "rates": Command("count the re-attempts in a log file, without a run", "rlhi rates 'logs/*.jsonl.zst'"),
    "diversity": Command("compare the diversity of the prompts of corpora, without a run", "rlhi diversity logs.parquet hh-rlhf=hh_rlhf/"),
    "profile": Command("print every setting, where its value comes from and what it means", "rlhi profile mine.yaml"),
    "plan": Command(
        "say what materializing assets would ask models for, and what the evaluation can find, without asking",
        "rlhi plan candidates --partition-range 2023-04...2023-06",
    ),
    "refresh": Command("launch the jobs of which something is not up to date, and say why", "rlhi refresh --dry-run", "refresh_command"),
    "home": Command("print DAGSTER_HOME of the run, making it if needed", 'DAGSTER_HOME="$(rlhi home)" dg launch --assets users'),
    "months": Command(
        "print the month range of the source, for dg launch --partition-range; its months become partitions",
        'dg launch --job preference_data --partition-range "$(rlhi months)"',
    ),
    "recipes": Command(
        "print the range of all recipes, for dg launch --partition-range", 'dg launch --job training --partition-range "$(rlhi recipes)"'
    ),
    "summary": Command("print the score table and where the report lies", "rlhi summary"),
    "verify": Command(
        "read all outputs and compare them with their checksums; exit code 1 if something is damaged", "rlhi verify", "verify_command"
    ),
    "why": Command(
        "show what made a preference pair or an evaluated reply, or what was made of a message", "rlhi why --random", "why_command"
    ),
    "persona": Command("show what is known of a user at a moment, and which messages say so", "rlhi persona --random", "persona_command"),
    "compare": Command("compare two recipes on the same items", "rlhi compare dpo_rewards base", "compare_command"),
    "compare-reports": Command(
        "put the numbers of two reports side by side, and say what differs in what they were made of",
        "rlhi compare-reports a/report.json b/report.json",
        "compare_reports_command",
    ),
    "example": Command(
        "show one pair of a recipe as the model sees it in training, token by token", "rlhi example dpo_rewrites", "example_command"
    ),
    "evaluate": Command(
        "score a checkpoint folder on public benchmarks", "rlhi evaluate checkpoint/ --benchmarks gsm8k=gsm8k/", "evaluate_command"
    ),
    "alpaca-lc": Command(
        "print win rate and length-controlled win rate of AlpacaEval annotations, without a run and without a network",
        "rlhi alpaca-lc annotations.json",
        "alpaca_command",
    ),
    "export": Command(
        "write the tables for SQL, the preference pairs for a trainer, or a checkpoint for the Hub",
        "rlhi export pairs.jsonl --format trl --recipe dpo_rewrites",
        "export_command",
    ),
    "store": Command("look at the response store, check it, care for it", "rlhi store stats", "store_command"),
    "forget": Command("forget a user: tombstone, tables, model answers", "rlhi forget 4f0c2f --yes", "forget_command"),
}
"""In the order in which ``rlhi --help`` lists them; a test holds them to the commands' own."""
