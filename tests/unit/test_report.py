"""The report page: self-contained, escaped, the same bytes every time, and complete about what is missing."""

import html
import re
import shlex
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rlhi_dagster import report
from rlhi_dagster.base import plots
from rlhi_dagster.base.tables import (
    CANDIDATE_REWARDS,
    CONTEXTUAL_DIVERSITY,
    CONVERSATIONS,
    EVAL_PROMPTS,
    FEEDBACK_LABELS,
    JUDGE_CALIBRATION,
    PREFERENCE_PAIRS,
    QUARANTINE,
    REATTEMPT_RATES,
    RESPONSES,
    REWARD_PAIRS,
    REWRITE_PAIRS,
    REWRITES,
    SCORES,
    TURNS,
    UNMET_WISHES,
    USERS,
    Table,
)
from rlhi_dagster.evaluation import COLD_START
from rlhi_dagster.evaluation.judge_quality import judge_quality
from rlhi_dagster.evaluation.judges import ReplyVerdict, TruthJudge, judge_pairs
from rlhi_dagster.evaluation.scores import scores
from rlhi_dagster.report.data import ReportData, marks
from rlhi_dagster.report.page import render
from rlhi_dagster.training import recipes
from rlhi_dagster.training.curves import curves, ends
from rlhi_dagster.training.recipes import BASE, Recipe, Role

LEVELS = [("all", "all"), *(("turn", turn) for turn in ("2", "3", "4", "5", ">5")), ("month", "2023-04"), ("month", "2023-05")]

MINE = "mine"
RECIPES = {
    BASE: (0.12, 0.45, 0.01),
    "sft_rewrites": (0.42, 0.65, 0.01),
    "dpo_rewrites": (0.84, 0.4, 0.015),
    "dpo_rewards": (0.71, 0.6, 0.03),
    "dpo_rewrites_no_persona": (0.16, 0.5, 0.02),
    "dpo_rewards_user_agnostic": (0.19, 0.5, 0.01),
    "dpo_rewards_shuffled_persona": (0.14, 0.5, 0.12),
    MINE: (0.6, 0.5, 0.02),
}
START = datetime(2023, 4, 1, tzinfo=UTC)
ATTACK = '<script>alert("x")</script><img src="https://example.org/a.png">'


def filled(table: Table, rows: list[dict]) -> pl.DataFrame:
    """Rows of a table in which columns that do not matter are null."""
    return table.conform(pl.DataFrame([dict.fromkeys(table.columns) | row for row in rows], schema=table.schema, orient="row"))


def made_up(users: int = 40, *, show_samples: bool = True, attack: str = "") -> ReportData:
    """A complete report's inputs, invented with a fixed seed."""
    rng = np.random.default_rng(7)
    prompts = [
        {
            "prompt_id": f"user_eval:c{user}-{item}:0",
            "benchmark": "user_eval",
            "user_id": f"u{user}",
            "turn_id": f"c{user}-{item}:0",
            "asked_at": START + timedelta(days=user + item),
            "prompt": [{"role": "user", "content": f"How do I look after tulips in month {item}?{attack}"}],
            "persona": "- Likes short answers.\n- Wants bullet points.\n- Prefers Spanish." + attack if (user + item) % 6 else "",
            "persona_line_ids": [],
            "earlier_conversations": int(rng.integers(0, 14)) if (user + item) % 6 else 0,
        }
        for user in range(users)
        for item in range(3)
    ] + [
        {
            "prompt_id": f"arithmetic:{item}",
            "benchmark": "arithmetic",
            "prompt": [{"role": "user", "content": f"What is {item} + 4?"}],
            "persona": "",
            "persona_line_ids": [],
            "reference": str(item + 4),
        }
        for item in range(20)
    ]
    eval_prompts = filled(EVAL_PROMPTS, prompts)
    responses, truth = [], {}
    for recipe, (all_met, some, malformed) in RECIPES.items():
        for prompt in prompts:
            if prompt["benchmark"] == "arithmetic":
                reply = f"Answer: {int(prompt['reference']) + int(rng.random() < 0.3)}"
            else:
                reply = f"{recipe}: plant the bulbs deep, water them once, then wait for spring. {rng.integers(1e9)}{attack}"
                met = 1.0 if rng.random() < all_met else round(min(2, int(rng.random() * 3 * some + 1)) / 3, 3)
                truth[prompt["prompt_id"], reply] = ReplyVerdict(met, bool(rng.random() < malformed))
                reply = None if rng.random() < 0.004 else reply
            responses.append(
                {
                    "response_id": f"{recipe}/{prompt['prompt_id']}",
                    "recipe": recipe,
                    "prompt_id": prompt["prompt_id"],
                    "benchmark": prompt["benchmark"],
                    "reply": reply,
                    "error": None if reply else "timeout",
                    "model": "m",
                }
            )
    all_responses = filled(RESPONSES, responses)
    judge = TruthJudge(lambda prompt_id, reply: truth[prompt_id, reply], "town")
    base = all_responses.filter(recipe=BASE)
    judgements = pl.concat(judge_pairs(eval_prompts, all_responses.filter(recipe=recipe), base, judge) for recipe in RECIPES)
    candidates = [
        {"candidate_id": f"t{turn}#{sample}", "turn_id": f"t{turn}", "condition": condition, "reward": quality + weight * rng.normal()}
        | {"persona_user_id": {"own": f"u{turn % 30}", "shuffled": f"u{turn % 30 + 1}", "none": None}[condition]}
        for turn in range(60)
        for sample in range(8)
        for quality in [rng.normal()]
        for condition, weight in (("own", 0.1), ("none", 0.6), ("shuffled", 1.4))
    ]
    labels = ["reattempt_with_feedback", "continuation", "new_request", "positive", "other"]
    return ReportData(
        headline={"Profile": "sample", "Source": "the sample town, six months", "Data version": "3f1c9a0b77de", "Seed": "7"},
        simulated="Users, requests and replies come from a simulation.\n\nTheir preferences are known to the judge `town` only.",
        deviations=["Personas are built from rules instead of by a language model.", "`beta` is 0.1 as in the paper."],
        recipes={
            name: recipe.model_copy(update={"description": recipe.description + attack}) for name, recipe in recipes.load_all().items()
        }
        | {MINE: Recipe(description="My own idea.", method="dpo", sources=("rewards",), against=("dpo_rewards",))},
        scores=scores(judgements, all_responses, judgements.filter(recipe=BASE)),
        judgements=judgements,
        eval_prompts=eval_prompts,
        responses=all_responses,
        reattempt_rates=filled(
            REATTEMPT_RATES,
            [
                {"dimension": dimension, "level": level, "denominator": denominator, "templates": templates, "n": 900 - 100 * order}
                | {"unanswered": 60 - order, "users": 80, "value": share, "ci_low": share - 0.03, "ci_high": share + 0.04}
                for order, (dimension, level) in enumerate(LEVELS)
                for denominator, lift in (("user_messages", 0.0), ("follow_ups", 0.2), ("conversations", 0.3), ("users", 0.4))
                for templates, extra in (("included", 0.0), ("excluded", 0.03))
                for share in [0.1 + lift + extra + 0.02 * order]
            ],
        ),
        conversations=filled(CONVERSATIONS, [{"conversation_id": f"c{i}", "user_turns": 1 + i % 7} for i in range(200)]).lazy(),
        users=filled(USERS, [{"user_id": f"u{i}", "conversations": 1 + i % 30} for i in range(90)]).lazy(),
        quarantine=filled(QUARANTINE, [{"row_id": f"f#{i}", "month": f"2023-0{4 + i % 3}", "reason": "toxic"} for i in range(20)]).lazy(),
        contextual_diversity=filled(
            CONTEXTUAL_DIVERSITY,
            [
                {
                    "corpus": corpus,
                    "value": value,
                    "n": 1200,
                    "encoder": "all-MiniLM-L6-v2",
                    "ci_low": value - 0.01,
                    "ci_high": value + 0.01,
                }
                for corpus, value in (("wildchat", 0.861), ("training prompts", 0.84))
            ],
        ),
        feedback_labels=filled(FEEDBACK_LABELS, [{"turn_id": f"t{i}", "label": labels[i % 5]} for i in range(3000)]).lazy(),
        unmet_wishes=filled(UNMET_WISHES, complaints(attack)),
        turns=filled(TURNS, [{"turn_id": row["turn_id"], "prompt": f"Said {row['turn_id']}.{attack}"} for row in complaints()]).lazy(),
        rewrites=filled(
            REWRITES,
            [
                {"rewrite_id": f"w{i}", "rewrite": "x" if i % 50 else None, "follow_up_applies": i % 4 != 0, "strategy": "feedback"}
                for i in range(600)
            ],
        ),
        rewrite_pairs=filled(
            REWRITE_PAIRS,
            [
                {"pair_id": f"p{i}", "is_kept": i % 4 != 0, "strategy": "feedback"}
                | {"drop_reasons": [] if i % 4 else ["identical_sides", "feedback_does_not_apply"][: 1 + (i % 8 == 0)]}
                for i in range(440)
            ],
        ),
        reward_pairs=filled(
            REWARD_PAIRS,
            [{"pair_id": f"p{i}", "is_kept": i % 5 != 0, "drop_reasons": [] if i % 5 else ["margin_too_small"]} for i in range(300)],
        ),
        candidate_rewards=filled(CANDIDATE_REWARDS, candidates),
        preference_pairs=filled(
            PREFERENCE_PAIRS,
            [
                {"pair_id": f"{source}{i}", "source": source, "split": "validation" if i % 10 == 0 else "train", "user_id": f"u{i % 70}"}
                | {"persona": "- Likes it short." if i % 9 else "", "is_kept": True}
                for source in ("rewrites", "rewards", "rewards_none", "rewards_shuffled")
                for i in range(310)
            ],
        ),
        checkpoints={recipe: manifest(recipe, rng) for recipe in RECIPES if recipe != BASE},
        show_samples=show_samples,
    )


def complaints(attack: str = "") -> list[dict]:
    """Complaints of 30 users in two months: 60 short answers, 20 of errors, 4 of 4 users about cats, 9 without a wish."""
    wishes = [*["short answers"] * 60, *["it does not work"] * 20, *["cats"] * 4, *["other wishes"] * 9]
    return [
        {
            "turn_id": f"it's {n}:2",
            "conversation_id": f"it's {n}",
            "user_id": f"u{n % (4 if wish == 'cats' else 30)}",
            "month": f"2023-0{4 + n % 2}",
            "wish": wish + attack,
            "topic": "gardens" if n % 3 else "other topics",
            "is_resolved": [True, False, None][n % 3],
            "call_ids": [],
        }
        for n, wish in enumerate(wishes)
    ]


def manifest(recipe: str, rng: np.random.Generator) -> dict:
    """A checkpoint's manifest with invented curves."""
    steps = []
    for step in range(1, 81):
        progress = 1 - np.exp(-step / 25)
        row = {"step": step, "loss": float(0.693 - 0.5 * progress + 0.03 * rng.normal())}
        if recipe != "sft_rewrites":
            row |= {
                "rewards/margins": float(4 * progress + 0.2 * rng.normal()),
                "logps/chosen": float(-60 + 8 * progress * (-1 if "shuffled" in recipe else 1) + rng.normal()),
                "logps/rejected": float(-62 - 25 * progress + rng.normal()),
            }
        steps.append(row)
    evaluations = [
        {"step": step, "eval_loss": 0.6, "eval_kl": step / 40, "eval_kl_error": 0.1, "eval_samples": 32.0} for step in (0, 20, 40, 60, 80)
    ]
    made = {"method": recipe.split("_")[0], "steps": steps, "evaluations": evaluations, "chosen": {"step": 60, "of": 80}}
    return {**made, "step0_loss": 0.6931, "pairs": 279, "seconds": 52.3}


@pytest.fixture(scope="module")
def page() -> str:
    return render(made_up())


def test_the_page_asks_for_nothing_from_the_network(page: str) -> None:
    assert not re.search(r"""(src|href|xlink:href|action|data)\s*=\s*["']?\s*(https?:)?//""", page)
    assert not re.search(r"url\(\s*[\"']?(https?:)?//", page)
    assert not re.search(r"<script|<link[^>]+stylesheet|@import|<iframe", page)
    assert "default-src 'none'" in page


def test_text_of_conversations_is_escaped() -> None:
    page = render(made_up(users=4, attack=ATTACK))
    assert "<script" not in page
    assert "<img" not in page
    for section in ("results", "samples", "wishes"):  # the description of a recipe; a request, a persona and replies; complaints
        body = page[page.index(f'<section id="{section}">') :]
        assert "&lt;script&gt;" in body[: body.index("</section>")]


def test_samples_are_shown_only_on_request() -> None:
    data = made_up(users=4, show_samples=False)
    assert "plant the bulbs deep" not in render(data)


def test_a_checkpoint_is_told_by_the_snapshot_that_was_kept(page: str) -> None:
    row = re.search(r"<tr>(?:(?!</tr>).)*dpo_rewrites_no_persona(?:(?!</tr>).)*60 of 80.*?</tr>", page, re.S)
    assert row
    assert re.search(r"1\.5.{0,40}n = 32", row[0], re.S)
    assert "KL to the start" in page


def test_same_inputs_give_the_same_bytes(page: str) -> None:
    assert render(made_up()) == page


def test_every_section_is_there_with_n_and_interval(page: str) -> None:
    results = ["results", "comparisons", "history", "reasoning", "samples"]
    for anchor in [*results, "logs", "wishes", "reattempts", "diversity", "pairs", "rewards", "training", "deviations"]:
        assert f'<section id="{anchor}">' in page
    assert re.search(r"<code>dpo_rewrites</code> minus <code>base</code>: <b>\+\d\d\.\d points \[\d+\.\d, \d+\.\d\]</b>, n = 120", page)
    assert 'class="missing"' not in page
    # Plots take their colours from the page, in light and in dark.
    assert not {colour for colour in plots.PALETTE.values() if colour in page[page.index("</style>") :]}
    assert "var(--s-2)" in page


def test_other_personas_cold_start_and_judges_are_shown_with_their_remarks() -> None:
    """Of the made-up items once more, asked under another persona and as if less were known."""
    plain = made_up(users=12)
    of_users = plain.eval_prompts.filter(benchmark="user_eval")  # type: ignore[union-attr]
    judgements, frames = plain.judgements.lazy().collect(), []  # type: ignore[union-attr]
    for name in ("user_eval_shuffled", "user_eval_empty", *COLD_START.values()):
        renamed = pl.col("prompt_id").str.replace("user_eval", str(name), literal=True)
        frames.append(
            judgements.filter(benchmark="user_eval").with_columns(
                prompt_id=renamed, benchmark=pl.lit(str(name)), judgement_id=pl.concat_str("judgement_id", pl.lit(str(name)))
            )
        )
    every = pl.concat([judgements, *frames])
    prompts = pl.concat([plain.eval_prompts, of_users.with_columns(benchmark=pl.lit("user_eval_after_0"), prompt_id=pl.lit("x"))])  # type: ignore[list-item]
    told = scores(every, plain.responses, every.filter(recipe=BASE), failed={"town": "the judge failed its calibration"})  # type: ignore[arg-type]
    quality = judge_quality(judgements, JUDGE_CALIBRATION.empty())
    shown = render(replace(plain, judgements=every, eval_prompts=prompts, scores=told, judge_quality=quality))
    for words in (
        "Under other personas",
        "the same requests of the same users",
        "The judges",
        "position bias",
        "the judge failed its calibration",
    ):
        assert words in shown
    assert "The judges" not in render(plain)
    vanishing = told.filter(pl.col("metric") == "personal_win_rate")
    assert vanishing["value"].to_list() == [0.0] * len(vanishing), "the same verdicts under every persona: nothing is personal"


def test_pictures_have_the_pages_colours() -> None:
    style = (Path(report.__file__).parent / "page.css").read_text()
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    dark = dark[: dark.index("* {")]
    for tone, colour in plots.PALETTE.items():
        assert f"{tone}: {colour};" in light
        assert f"{tone}: " in dark
        assert f"{tone}: {colour};" not in dark


def test_the_page_and_the_ui_draw_the_same_curves() -> None:
    data = made_up(users=2)
    made = data.checkpoints["dpo_rewrites"]
    panels = {"loss": "loss", "kl": "KL"}
    figure = curves({"a": made}, panels=panels, columns=1, limits=ends({"a": made, "b": {"steps": [{"step": 1, "loss": 9.0}]}}, panels))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "KL"]
    assert figure.axes[0].get_ylim()[1] > 9.0
    loss = next(axes for axes in curves({"a": made}).axes if axes.get_title(loc="left") == "loss (nats)")
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [list(line.get_ydata()) for line in loss.lines]


def test_no_treatment_is_drawn_as_a_control() -> None:
    arms = recipes.load_all()
    looks = marks(arms)
    assert {name for name, mark in looks.items() if mark.is_hollow} == {
        "dpo_edits_no_persona",
        "dpo_rewards_online_no_persona",
        "dpo_rewards_shuffled_persona",
        "dpo_rewards_user_agnostic",
        "dpo_rewrites_from_scratch",
        "dpo_rewrites_no_persona",
        "dpo_siblings_no_persona",
        "kto_thumbs_shuffled",
        "sdpo_follow_ups_shuffled",
    }
    assert len(set(looks.values())) == len(arms)
    of_rewards = [looks[name].tone for name in arms if name.startswith("dpo_rewards")]
    assert len(of_rewards) == 5
    assert len(set(of_rewards)) == 1


def test_a_recipe_of_ones_own_is_shown_as_what_it_is(page: str) -> None:
    for other in (BASE, "dpo_rewards"):
        assert f"<code>mine</code> minus <code>{other}</code>: <b>" in page
    history = page[page.index('<section id="history">') : page.index('<section id="reasoning">')]
    assert re.search(r'class="legend">(?:(?!</ul>).)*mine', history, re.S)
    assert "dpo_rewards_user_agnostic" not in history[: history.index("<table>")]
    assert "My own idea." in page


def test_a_recipe_whose_file_is_gone_is_still_shown() -> None:
    data = made_up(users=4)
    arms = {name: recipe for name, recipe in data.recipes.items() if name != "dpo_rewrites" and recipe.role is not Role.CONTROL}
    assert "dpo_rewrites" in render(replace(data, recipes=arms))


def test_missing_inputs_are_named_with_their_assets() -> None:
    page = render(ReportData())
    for asset in (
        "conversations",
        "users",
        "quarantine",
        "scores",
        "judgements",
        "eval_prompts",
        "unmet_wishes",
        "reattempt_rates",
        "contextual_diversity",
        "feedback_labels",
        "checkpoints",
    ):
        assert re.search(rf'class="missing">[^/]*(</?code>|[^<])*<code>{asset}</code>', page), asset


def test_all_readings_stand_beside_the_papers_figures(page: str) -> None:
    assert "26.51% of user messages" in page
    assert page.count("Nearest to ") == 2
    for reading in ("of the follow-ups after turn 5", "of the conversations longer than five turns, with at least one"):
        assert reading in page
    assert "of them unanswered" in page
    for plot in ("by turn", "by month", "Labels of follow-ups", "Conversations by length", "Users by activity", "Rejected rows by month"):
        assert re.search(f'role="img" aria-label="[^"]*{plot}', page), plot


def wishes_of(page: str) -> str:
    body = page[page.index('<section id="wishes">') :]
    return body[: body.index("</section>")]


def test_complaints_are_shown_by_wish_with_users_and_what_was_settled(page: str) -> None:
    body = wishes_of(page)
    assert "93 of 3,000 follow-ups (3\u202f%) ask for another attempt and say what to change: complaints of 30 users." in body
    row = re.search(r"<tr><th[^>]*>short answers</th>(.*?)</tr>", body, re.S)
    assert row
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.S)
    assert cells[:3] == ["60", "65\u202f%", "30"]
    assert re.search(r"50\.0.%<small>\[\d+\.\d, \d+\.\d\]</small><small>n = 40</small>", cells[3])
    for picture in ("Complaints by wish", "Share of each month"):
        assert re.search(f'role="img" aria-label="{picture}', body), picture


def test_groups_of_fewer_users_are_not_shown_nor_their_words(page: str) -> None:
    body = wishes_of(page)
    assert "Groups of fewer than 5 users are not shown, 4 complaints in all." in body
    hidden = [row["turn_id"] for row in complaints() if row["wish"] == "cats"]
    assert "cats" not in body
    assert not [turn_id for turn_id in hidden if f"Said {turn_id.replace(chr(39), '&#39;')}." in body]
    assert "cats" in wishes_of(render(replace(made_up(), min_users=4)))


def test_examples_are_of_different_users_and_lead_on(page: str) -> None:
    body = wishes_of(page)
    users = {f"it's {n}:2": f"u{n % 30}" for n in range(93)}
    for wish in ("short answers", "it does not work", "other wishes"):
        block = re.search(rf"<h4>{wish}</h4>(.*?)</ul>", body, re.S)
        assert block
        said = [html.unescape(text) for text in re.findall(r"<q>Said (.*?)\.</q>", block[1])]
        assert len({users[turn_id] for turn_id in said}) == len(said) == 3
        commands = [html.unescape(text) for text in re.findall(r"<code>(rlhi why .*?)</code>", block[1])]
        assert [shlex.split(command)[2] for command in commands] == said


def test_without_scores_the_page_begins_with_complaints() -> None:
    data = made_up(users=2)
    page = render(ReportData(unmet_wishes=data.unmet_wishes, turns=data.turns))
    assert re.search(r'class="lede">93 ask for another attempt.*?href="#wishes"', page)


TABLES = [
    "unmet_wishes",
    "turns",
    "scores",
    "judgements",
    "eval_prompts",
    "responses",
    "rewrites",
    "rewrite_pairs",
    "preference_pairs",
    "candidate_rewards",
]


@pytest.mark.parametrize("name", TABLES)
def test_any_single_table_may_be_missing(name: str) -> None:
    assert "<h1>" in render(replace(made_up(users=2), checkpoints={}, **{name: None}))


def test_every_table_may_be_empty() -> None:
    data = made_up(users=2)
    frames = {field.name: getattr(data, field.name) for field in fields(ReportData)}
    empty = {name: frame.lazy().head(0) for name, frame in frames.items() if isinstance(frame, pl.DataFrame | pl.LazyFrame)}
    assert len(empty) == 17
    assert render(ReportData(**empty)).count('class="missing"') >= 8


def test_the_first_sentence_tells_the_gain_on_the_requests_that_it_speaks_of() -> None:
    key = {"recipe": "dpo_rewrites", "judge": "town", "n": 40}
    gain = {"metric": "all_preferences_met_minus_base", "ci_low": 0.1, "ci_high": 0.3}
    rows = [
        key | {"benchmark": "user_eval", "metric": "all_preferences_met", "value": 0.5},
        key | gain | {"benchmark": "user_eval", "value": 0.2},
        key | gain | {"benchmark": "user_eval_shuffled", "value": -0.1},
    ]
    page = render(ReportData(scores=filled(SCORES, rows), recipes=recipes.load_all()))
    lede = page[page.index('class="lede"') :]
    assert "+20.0 points [10.0, 30.0] against the base" in lede[: lede.index("</p>")]


def test_the_ceiling_stands_after_the_recipes_and_is_none(page: str) -> None:
    """In the sentence, the first picture, the table, and the curve over what is known; no claim is made of it."""
    assert "ceiling" not in page
    data = replace(made_up(users=2), checkpoints={})
    judgements = data.judgements.lazy().collect()  # type: ignore[union-attr]
    cut = [
        judgements.filter(benchmark="user_eval").with_columns(
            prompt_id=pl.col("prompt_id").str.replace("user_eval", str(name), literal=True), benchmark=pl.lit(str(name))
        )
        for name in COLD_START.values()
    ]
    of = {"recipe": BASE, "judge": "town", "metric": "all_preferences_met_ceiling", "n": 12, "users": 4, "ci_low": 0.7, "ci_high": 0.8}
    asked = ["user_eval", *map(str, COLD_START.values())]
    known = filled(SCORES, [of | {"benchmark": benchmark, "value": 0.751} for benchmark in asked])
    page = render(replace(data, judgements=pl.concat([judgements, *cut]), scores=pl.concat([data.scores, known])))  # type: ignore[list-item]
    lede = page[page.index('class="lede"') :]
    assert "guesses the rest would meet every preference in 75.1\u202f% [70.0, 80.0] of them." in lede[: lede.index("</p>")]
    results = page[page.index('<section id="results">') : page.index('<section id="comparisons">')]
    table = results[results.index("<table>") :]
    assert re.findall(r'<th scope="row">([^<]+)<', table)[-1] == "the ceiling"
    assert results.count("75.1\u202f% [70.0, 80.0]") == 1, "in the picture of that metric alone"
    history = page[page.index('<section id="history">') : page.index('<section id="reasoning">')]
    assert re.search(r'class="legend">(?:(?!</ul>).)*the ceiling', history, re.S)
    assert "the ceiling" not in page[page.index('<section id="comparisons">') : page.index('<section id="history">')]
    assert 'class="name">the ceiling' not in page, "no card"


def test_the_papers_average_stands_beside_the_papers_or_is_said_to_lack_benchmarks() -> None:
    row = {"recipe": BASE, "metric": "accuracy", "judge": "known_answer", "value": 0.265, "n": 40, "users": 40}
    of = {name: row | {"benchmark": name} for name in ("olympiad_bench", "minerva", "gpqa", "mmlu_pro", "paper_reasoning_average")}
    whole = render(ReportData(benchmark_scores=filled(SCORES, list(of.values()))))
    average = whole[whole.index("paper_reasoning_average") :]
    assert "26.5 % before, 31.8 % after" in average[: average.index("</tr>")]
    assert "has no row" not in whole
    partly = render(ReportData(benchmark_scores=filled(SCORES, [of["gpqa"], of["minerva"]])))
    assert "The paper&#39;s average over four reasoning benchmarks has no row: olympiad_bench, mmlu_pro not run." in partly
    assert "has no row" not in render(ReportData(benchmark_scores=filled(SCORES, [row | {"benchmark": "gsm8k"}])))


def test_a_score_without_interval_is_shown() -> None:
    row = {"recipe": BASE, "benchmark": "user_eval", "metric": "all_preferences_met", "value": 0.5, "n": 1, "judge": "town"}
    assert "50.0\u202f%" in render(ReportData(scores=filled(SCORES, [row])))
