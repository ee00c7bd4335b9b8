"""The table of hostile strings through every exit: prompts, report, metadata, cards, spreadsheets, terminal, logs.

What belongs here: whether a text stays a text. What does not: what an exit shows (each one's own tests).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from rlhi_dagster.base import escapes, failures, plots
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.sheets import from_sheet, to_sheet
from rlhi_dagster.base.tables import TABLES
from rlhi_dagster.cli import inspect_command
from rlhi_dagster.conversations.inspection import Inspection
from rlhi_dagster.conversations.sources import SourceKind
from rlhi_dagster.conversations.sources.files import Found
from rlhi_dagster.engines.models import digest_of
from rlhi_dagster.export.dataset_card import Share, card
from rlhi_dagster.feedback.labels import agreement, offline
from rlhi_dagster.graph import metadata
from rlhi_dagster.profiles import load
from rlhi_dagster.report.page import render
from rlhi_dagster.training import loss_mask, model_card
from tests.hostile import EVERYTHING, FORGED, HARMLESS, STRINGS, unseen
from tests.lakes import ANN, world
from tests.unit.test_prompts import CASES, PROMPTS, SAID, leaves, seen
from tests.unit.test_report import made_up
from tests.unit.test_training_model_card import MANIFEST

EACH = pytest.mark.parametrize("said", STRINGS.values(), ids=STRINGS)


# Prompts


@pytest.mark.parametrize("name", PROMPTS)
def test_no_text_changes_the_blocks_of_a_prompt(name: str) -> None:
    plain = leaves(name, CASES[name](SAID))
    for said in STRINGS.values():
        found = leaves(name, CASES[name](f"{SAID} {said} {SAID}"))
        assert [where for where, _ in found] == [where for where, _ in plain], said
        for (where, text), (_, other) in zip(plain, found, strict=True):
            assert other.count(seen(SAID)) == 2 * text.count(seen(SAID)), (where, said)


# The report


class Page(HTMLParser):
    """Elements and attributes as a browser finds them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()
        self.comments = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses |= {str(value) for name, value in attrs if name in ("href", "src", "action", "data", "xlink:href", "srcset")}

    def handle_comment(self, data: str) -> None:
        self.comments += 1


def test_the_report_shows_text_as_text_and_loads_nothing() -> None:
    plain, page = Page(render(made_up(users=4))), render(made_up(users=4, attack=EVERYTHING))
    found = Page(page)
    assert found.elements == plain.elements
    assert found.attributes == plain.attributes
    assert found.comments == plain.comments
    assert not found.elements & {"script", "img", "iframe", "object", "embed", "form", "base", "input", "image", "foreignobject"}
    assert not any(name.startswith("on") for name in found.attributes)
    assert all(re.fullmatch(r"#[\w-]*|data:,", address) for address in found.addresses), found.addresses
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)
    assert policy
    assert policy[1].startswith("default-src 'none';")
    assert "script-src" not in policy[1]
    assert page.index("Content-Security-Policy") < page.index("<style>"), "before anything that it is about"
    assert unseen(page) == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@EACH
def test_a_picture_of_the_report_shows_names_as_text(said: str) -> None:
    rows = [plots.Row(said, 0.4, 0.3, 0.5, f"{said} (3)", plots.Mark("--muted"))]
    plain = Page(plots.svg(plots.forest([plots.Row("a", 0.4, 0.3, 0.5, "b", plots.Mark("--muted"))]), "name"))
    drawn = plots.svg(plots.forest(rows), said)
    found = Page(drawn)
    assert found.elements - plain.elements <= {"tspan", "g"}
    assert not any(name.startswith("on") for name in found.attributes)
    assert all(address.startswith("#") for address in found.addresses)
    assert unseen(drawn) == []


def test_nobody_can_be_told_by_their_persona_in_a_report_on_real_logs() -> None:
    data = made_up(users=4, show_samples=False, attack="PRIVATE19")
    for name in ("recipes", "turns", "unmet_wishes"):  # a recipe's description is the operator's; groups of few users are not shown
        object.__setattr__(data, name, getattr(made_up(users=4), name))
    assert "PRIVATE19" not in render(data)


# Markdown: metadata and cards

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
LINKED = re.compile(r"https?://|\bwww\.\w|[\w.+-]+@[\w-]+\.\w", re.IGNORECASE)
HARMLESS_TOKENS = {"text", "code_inline", "inline", "softbreak", "paragraph_open", "paragraph_close"}


def tokens(text: str) -> list[Token]:
    return [each for token in READER.parse(text) for each in (token, *(token.children or ()))]


def kinds(text: str) -> list[str]:
    return [token.type for token in tokens(text)]


def shown(text: str) -> str:
    return " ".join(token.content for token in tokens(text) if token.type in ("text", "code_inline"))


def check_markdown(text: str, like: str) -> None:
    """The same blocks as a text with a harmless name, and nothing that links or loads."""
    blocks = [[kind for kind in kinds(each) if kind not in ("text", "code_inline")] for each in (text, like)]
    assert blocks[0] == blocks[1]
    own = {token.attrs.get("href") for token in tokens(like)}
    assert {token.attrs.get("href") for token in tokens(text)} == own
    assert not [token.content for token in tokens(text) if token.type == "text" and LINKED.search(token.content)]
    assert unseen(text) == []


@EACH
def test_a_text_in_markdown_stays_a_text(said: str) -> None:
    for made in (escapes.markdown, escapes.markdown_code):
        written = f"Before {made(said)} after"
        assert set(kinds(written)) <= HARMLESS_TOKENS, written
        assert "".join(shown(written).split()) == "".join(f"Before{escapes.visible(said)}after".split())
        assert not [token for token in tokens(written) if token.type == "text" and LINKED.search(token.content)]
        assert unseen(written, but="") == []
    fenced = READER.parse(f"{escapes.markdown_block(said, 'yaml')}\n\nafter")
    assert [token.type for token in fenced] == ["fence", "paragraph_open", "inline", "paragraph_close"]


def test_plain_names_and_numbers_stay_as_they_are_in_markdown() -> None:
    for said in ("dpo_rewrites", "4.2 %", "+0.0123", "m@1", "acme/Tiny-1M", "WildChat, without templates", "[1.0%, 2.5%] holds", "-3"):
        assert shown(escapes.markdown(said)) == said
    for said in ("dpo_rewrites", "4.2 %", "m@1", "acme/Tiny-1M", "WildChat, without templates", "5 [1.0%, 2.5%] holds"):
        assert escapes.markdown(said) == said


@given(st.text(alphabet=st.sampled_from("ab1 `|\\*_[](){}<>#+-.!&~:/@$=\n\t\u202e\x1b")))
@settings(deadline=None, max_examples=300)
def test_no_mixture_of_marks_is_markup(said: str) -> None:
    written = f"Before {escapes.markdown(said)} after"
    assert set(kinds(written)) <= HARMLESS_TOKENS, written
    table = escapes.markdown_table(["a", "b"], [[escapes.markdown(said), "end"]])
    assert kinds(table).count("td_open") == 2
    assert shown(table).endswith("end")


@EACH
def test_metadata_in_the_ui_shows_text_as_text(said: str) -> None:
    like, frame = pl.DataFrame({"name": ["x"], "n": [1]}), pl.DataFrame({said: [said], "n": [1]})
    check_markdown(metadata.markdown_table(frame).md_str, metadata.markdown_table(like).md_str)
    check_markdown(metadata.bars({said: 3}).md_str, metadata.bars({"x": 3}).md_str)
    check_markdown(metadata.markdown_list([said, said]).md_str, metadata.markdown_list(["x", "x"]).md_str)


def hostile_manifest(said: str) -> dict[str, Any]:
    manifest = copy.deepcopy(MANIFEST)
    manifest["model"]["name"] = manifest["start"]["name"] = manifest["data"]["conversations"] = manifest["hardware"]["name"] = said
    manifest["data"]["by_source"] = {said: 3}
    manifest["settings"] = {"run_name": said}
    return manifest


def score(judge: str) -> dict[str, Any]:
    return {"benchmark": "user_eval", "metric": "win_rate", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n": 3, "judge": judge}


@EACH
def test_a_model_card_shows_names_as_text(said: str) -> None:
    text, like = (model_card.card(hostile_manifest(name), [score(name)]) for name in (said, "plain"))
    _, header, body = text.split("---\n", 2)
    check_markdown(body, like.split("---\n", 2)[2])
    assert yaml.safe_load(header)["base_model"] == (said if not unseen(said) else yaml.safe_load(header)["base_model"])


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(root=str(tmp_path_factory.mktemp("empty") / "lake"))
    for name in ("rewrite_pairs", "reward_pairs", "reasoning_pairs", "explicit_pairs", "preference_pairs"):
        lake.write(name, TABLES[name].empty(), ["2023-04"] if TABLES[name].partition_column else None)
    return lake


def dataset_card(said: str, lake: Lake) -> str:
    profile = load("sample")
    profile = profile.model_copy(update={"name": said, "source": profile.source.model_copy(update={"name": said})})
    row = {"source": "rewards", "persona": "", "model": said, "reward_model": said}
    return card([Share("train", pl.DataFrame([row]), 1, 1)], None, lake, profile)


@EACH
def test_a_dataset_card_shows_names_as_text(said: str, empty_lake: Lake) -> None:
    text, like = (dataset_card(name, empty_lake).split("---\n", 2)[2] for name in (said, "plain"))
    check_markdown(text, like)


# Spreadsheets


@EACH
def test_no_cell_begins_as_a_formula_and_labels_are_read_back(said: str, tmp_path: Path) -> None:
    row = {"conversation_hash": said, "message_index": 2, "is_unanswered": False, "label": "neutral", "probability": 0.5}
    offline.write(pl.DataFrame([row]), file := tmp_path / "labels.csv")
    (cell,) = pl.read_csv(file, infer_schema=False)["conversation_hash"]
    assert not re.match(r"[\s\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20|%]|[\t\r\n]", cell), cell
    assert to_sheet(pl.DataFrame({"text": [said]}))["text"].to_list() == [cell]
    frame = pl.DataFrame({"text": [said, None, HARMLESS], "number": [-1, None, 2]})
    assert from_sheet(to_sheet(frame)).equals(frame)
    if row["label"] in agreement.LABELS:
        assert agreement.read_gold(file)["conversation_hash"].to_list() == [said]


# The terminal and logs


@EACH
def test_visible_text_obeys_nothing_and_keeps_its_meaning_in_json(said: str) -> None:
    assert unseen(escapes.visible(said)) == []
    assert escapes.visible(escapes.visible(said)) == escapes.visible(said)
    assert json.loads(escapes.visible(json.dumps(said, ensure_ascii=False))) == said
    assert not re.search(rf"^{FORGED}", escapes.lines(["x", said]), re.MULTILINE)
    assert len(escapes.lines(["x", said]).splitlines()) == 2
    assert escapes.visible(HARMLESS) == HARMLESS
    assert escapes.visible("half \ud800") == "half \\ud800"


def test_tokens_of_an_example_are_coloured_by_us_alone() -> None:
    words = ["quiet \x1b[8mhidden", "loud \x1b]0;x\x07\u202e"]
    marked = loss_mask.Marked([0, 1], [False, True])
    text = loss_mask.text(marked, lambda ids: "".join(words[each] for each in ids), in_colour=True)
    assert unseen(re.sub(r"\x1b\[[\d;]*m", "", text)) == []
    assert "\\u001b[8mhidden" in text


OURS = {
    "approach", "benchmark", "cause", "condition", "contaminated_how", "criterion", "denominator", "dimension", "drop_reasons", "error",
    "giver", "kind", "label", "language", "metric", "month", "order", "reason", "recipe", "opponent", "source", "split", "strategy",
    "templates", "verdict",
}  # fmt: skip
"""Columns whose words are this project's own."""
ALL_IN_ONE = f"{STRINGS['the clipboard']}{STRINGS['over the line']}\n{FORGED} {STRINGS['other line breaks']}{STRINGS['another direction']}"


def hostile(frame: pl.DataFrame) -> pl.DataFrame:
    """A table in which every text that others choose, ids of conversations and names of models among them, ends in hostile text."""

    def worse(value: Any) -> Any:
        if isinstance(value, str):
            return value + ALL_IN_ONE if not re.fullmatch("[0-9a-f]{32}|user|assistant|system", value) else value
        if isinstance(value, dict):
            return {name: worse(each) for name, each in value.items()}
        return [worse(each) for each in value] if isinstance(value, list) else value

    changed = [{name: value if name in OURS else worse(value) for name, value in row.items()} for row in frame.to_dicts()]
    return pl.DataFrame(changed, schema=frame.schema)


@pytest.fixture(scope="module")
def haunted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of a run all of whose texts are hostile."""
    made = world(tmp_path_factory.mktemp("haunted") / "data").written()
    for name in TABLES:
        for file in made.lake.artefact_path(name).glob("*.parquet"):
            hostile(pl.read_parquet(file)).write_parquet(file)
    return made.root


def first(root: Path, table: str, column: str) -> str:
    return str(Lake(root=str(root / "lake")).scan(table).select(column).collect()[column].sort()[0])


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "persona": lambda _: ["persona", ANN, "--all"],
    "why, of a pair": lambda _: ["why", digest_of("rewrite", "ca")],
    "why, whole": lambda _: ["why", digest_of("rewrite", "ca"), "--full"],
    "why, as JSON": lambda _: ["why", digest_of("rewrite", "ca"), "--json"],
    "why, of a message": lambda root: ["why", first(root, "turns", "turn_id")],
    "why, of a reply": lambda root: ["why", first(root, "responses", "response_id")],
    "why, of nothing": lambda _: ["why", f"none{ALL_IN_ONE}"],
    "summary": lambda _: ["summary"],
    "forget": lambda _: ["forget", ANN],
    "compare": lambda _: ["compare", "dpo_rewrites", "base"],
    "plan": lambda _: ["plan", "--difference", "0.05"],
    "inspect": lambda _: ["inspect", f"/nowhere/{ALL_IN_ONE}"],
    "label": lambda _: ["label", f"/nowhere/{ALL_IN_ONE}", "out.csv"],
    "no command": lambda _: [f"x{ALL_IN_ONE}"],
    "no argument": lambda _: ["recipes", f"--x{ALL_IN_ONE}"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_text_of_others_reach_the_terminal(command: str, haunted: Path, rlhi: Callable[..., CompletedProcess[str]]) -> None:
    arguments = COMMANDS[command](haunted)
    done = rlhi(haunted, *arguments)
    told = done.stdout + done.stderr
    assert unseen(told) == []
    assert not re.search(rf"^{FORGED}", told, re.MULTILINE), told[:2000]
    if command.startswith(("persona", "why")) and done.returncode == 0:
        assert "\\u001b]52;c;" in told, "it was there to be shown"
    if command == "why, as JSON":
        assert json.loads(done.stdout)["turns"][0]["prompt"].endswith(ALL_IN_ONE)
    assert "Traceback" not in told


def test_what_inspect_says_of_a_source_is_lines_of_its_own() -> None:
    said = ALL_IN_ONE
    found = Inspection(
        said, SourceKind.WILDCHAT, said, said, 3, False, 3, 2, {"toxic": (1, said)}, {said: 1}, (said,), (said,), (said,), (2, 2),
        {"2023-04": 2}, 0, {said: 2}, {(said, said): 1}, {said: 2},
    )  # fmt: skip
    text = inspect_command.text(found)
    assert unseen(text) == []
    assert not re.search(rf"^{FORGED}", text, re.MULTILINE)
    section = text[text.index("extends: laptop") :]
    assert yaml.safe_load(section)["source"]["location"] == said


@EACH
def test_logs_and_failures_are_lines_without_anything_unseen(said: str) -> None:
    try:
        raise failures.NotMadeError(f"file {said} cannot be read", "turns")
    except failures.NotMadeError as error:
        told = failures.sentence(error)
    assert told is not None
    assert unseen(told, but="") == []
    account = Found((), "", {f"files that end in {said}": 3}).account
    assert unseen(account, but="\t") == []
