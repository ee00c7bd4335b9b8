"""The preference stage with language models behind a server in every role that has one, in a run like any other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.graph.conftest import Run
from tests.servers import Asked, Told, completion, serving

pytestmark = pytest.mark.slow

ROLES = {"persona_writer": "writers/one", "rewriter": "writers/two", "pair_judge": "judges/one", "simulated_user": "users/one"}
NOTHING = {"withdrawn": [], "revised": [], "new": []}


class Models:
    """Plays every role by the prompt it gets: notes what a message says, rewrites, judges, points at wrong steps."""

    def __init__(self) -> None:
        self.asked = dict.fromkeys(ROLES, 0)

    async def __call__(self, asked: Asked) -> Told:
        if asked.method == "GET":
            return Told(payload={"data": [{"id": name} for name in ROLES.values()]})
        role = next(role for role, name in ROLES.items() if name == asked.json["model"])
        self.asked[role] += 1
        text = asked.json["messages"][-1]["content"]
        return Told(payload=completion(getattr(self, role)(text)))

    def persona_writer(self, text: str) -> str:
        """Of the first message that speaks of a list a note with a true quote, and one whose quote nobody said."""
        said = re.findall(r'<message number="(\d+)".*?<user>(.*?)</user>', text, re.DOTALL)
        found = next(((int(number), words) for number, words in said if "bullet points" in words), None)
        if found is None or "bullet points" in text.split("</notes>")[0]:
            return json.dumps(NOTHING)
        notes = [("Prefers lists of bullet points.", "bullet points"), ("Owns a boat.", "I own a boat")]
        new = [{"line": line, "citations": [{"message": found[0], "quote": quote}]} for line, quote in notes]
        return json.dumps(NOTHING | {"new": new})

    def rewriter(self, text: str) -> str:
        if "<reply>" in text:  # the repair
            return text.split("<reply>")[1].split("</reply>")[0].strip().removeprefix("Sorry for the confusion! ")
        original = text.split("<original>")[1].split("</original>")[0].strip()
        apology = "Sorry for the confusion! " if "<follow_up>" in text and len(original) % 2 else ""
        return f"{apology}{original[: len(original) // 2]} And that is all there is to say about it."

    def pair_judge(self, text: str) -> str:
        return "A"

    def simulated_user(self, text: str) -> str:
        step = re.search(r"Step (\d+) is the first wrong step", text)
        assert step
        return f"I think step {step.group(1)} is not right, look at it again."


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


@pytest.fixture(scope="module")
def run(undisturbed: Run, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run, and its preference data once more with language models."""
    copy = undisturbed.copied(tmp_path_factory.mktemp("models") / "run")
    profile = Path(copy.env["RLHI_PROFILE"])
    settings = yaml.safe_load(profile.read_text())
    settings["personas"] = {}
    settings["rewrites"] |= {"form": "instruction"}
    settings["sampling"]["max_new_tokens"] = 64
    with serving(models) as address:
        server = {"kind": "openai", "base_url": f"{address}/v1", "chunk_size": 64}
        settings["models"] |= {role: {"served": f"{name}@r1", "engine": server} for role, name in ROLES.items()}
        profile.write_text(yaml.safe_dump(settings))
        done = copy.launch("preference_data", copy.months())
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return copy


def test_every_role_was_asked(run: Run, models: Models) -> None:
    assert all(models.asked.values()), models.asked


def test_persona_lines_rest_on_what_users_said(run: Run) -> None:
    lines = run.table("personas")
    assert set(lines["line"]) == {"Prefers lists of bullet points."}, "the note with a made-up quote is dropped"
    assert set(lines["writer"]) == {"writers/one@r1"}
    cited = lines.explode("evidence", "quotes").join(run.table("turns"), left_on="evidence", right_on="turn_id")
    assert all(quote in prompt for quote, prompt in cited.select("quotes", "prompt").iter_rows())
    assert lines["call_id"].null_count() == 0


def test_rewrites_that_apologise_are_repaired(run: Run) -> None:
    rewrites = run.table("rewrites").filter(pl.col("strategy") == "feedback")
    repaired = rewrites.filter("is_repaired")
    assert 0 < len(repaired) < len(rewrites)
    assert not rewrites["rewrite"].str.contains("Sorry").any()
    assert (repaired["call_ids"].list.len() == 3).all(), "written, repaired, judged"
    assert set(rewrites["pair_judge"]) == {next(iter(rewrites["pair_judge"]))}
    assert rewrites["model"].unique().to_list() == ["writers/two@r1"]


def test_the_judge_tells_which_follow_ups_apply(run: Run) -> None:
    judged = run.table("wildllamachat").drop_nulls("follow_up_applies")
    assert len(judged) > 0
    assert judged["applies_judge"].str.starts_with("judges/one@r1").all()
    assert judged["applies_call_id"].null_count() == 0


def test_the_simulated_user_points_at_steps(run: Run) -> None:
    errors = run.table("reasoning_errors")
    assert errors["simulated_user"].unique().to_list() == ["users/one@r1"]
    assert errors["feedback"].drop_nulls().str.contains("not right").all()
