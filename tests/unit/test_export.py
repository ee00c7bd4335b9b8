"""Exports: what TRL, LLaMA-Factory and the Hub's library read, chosen as asked, and put in place at once."""

from __future__ import annotations

import argparse
import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from rlhi_dagster.base import failures
from rlhi_dagster.base.lake import Lake
from rlhi_dagster.base.tables import (
    ONLINE_PAIRS,
    REASONING_PAIRS,
    RESPONSES,
    REWARD_PAIRS,
    REWRITE_PAIRS,
    SCORES,
    TABLES,
    THUMB_EXAMPLES,
    Table,
)
from rlhi_dagster.cli import example_command as training_command
from rlhi_dagster.cli import export_command as command
from rlhi_dagster.engines.models import digest_of, weights_digest
from rlhi_dagster.export import Format, dataset_card
from rlhi_dagster.export.hub import export_checkpoint
from rlhi_dagster.export.selection import Selection
from rlhi_dagster.export.writing import export
from rlhi_dagster.personas.conditioning import with_persona
from rlhi_dagster.preferences import Source, merge
from rlhi_dagster.preferences.decontamination import HITS
from rlhi_dagster.profiles import load
from tests.unit.test_training_model_card import MANIFEST

PROFILE = load("sample")
USERS = 30
NOW = datetime(2031, 4, 1, tzinfo=UTC)


def table(declared: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in declared.columns} for row in rows], schema=declared.schema, orient="row")


def pair(pair_id: str, number: int, **more: Any) -> dict[str, Any]:
    history = [{"role": "user", "content": f"Hello {number}"}, {"role": "assistant", "content": "Yes?"}]
    prompt = [*(history if number % 2 else []), {"role": "user", "content": f"Tell me about river {number}\u2028now"}]
    sides = {"chosen": f"It is {number} miles.", "rejected": f"River {number} \u00a1s\u00ed!", "persona": "- short" if number % 3 else ""}
    kept = {"is_kept": True, "drop_reasons": [], "call_ids": ["c"], "persona_line_ids": ["p"], "month": "2023-04"}
    return {
        "pair_id": pair_id,
        "user_id": f"secret{number}",
        "turn_id": f"t:{number}",
        "prompt": prompt,
        **sides,
        **kept,
        "model": "m@1",
    } | more


def online_pair(number: int) -> dict[str, Any]:
    """The first four are kept, the last of them for validation; the others are dropped."""
    kept = {"is_kept": number < 4, "drop_reasons": [] if number < 4 else ["margin_too_small"]}
    told = {
        "recipe": "dpo_rewards_online",
        "round": 1 + number % 2,
        "split": "validation" if number == 3 else "train",
        "reward_model": "rm@1",
    }
    return pair(f"o{number}", number, **told, **kept) | {"model": f"policy-{1 + number % 2}@1"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(root=str(tmp_path_factory.mktemp("lake")))
    rewrites = [pair(f"f{number}", number, strategy="feedback", meets_feedback=0.9) for number in range(USERS)]
    rewrites += [pair("again", 1, strategy="feedback"), pair("far", 1, is_kept=False, drop_reasons=["reward_margin", "length_ratio"])]
    conditions = ("own", "shuffled", "none")
    rewards = [pair(f"{name}{number}", number, condition=name, reward_model="rm@1") for name in conditions for number in range(USERS + 8)]
    tables = (
        table(REWRITE_PAIRS, rewrites),
        table(REWARD_PAIRS, rewards),
        table(REASONING_PAIRS, [pair("e1", 1, user_id=None, error_id="x")]),
        TABLES["explicit_pairs"].empty(),
    )
    pairs = merge.preference_pairs(merge.offered_pairs(*tables), HITS.to_frame(), TABLES["users"].empty(), 0.9, 0.2)
    for name, frame in zip(("rewrite_pairs", "reward_pairs", "reasoning_pairs", "explicit_pairs"), tables, strict=True):
        made.write(name, frame, ["2023-04"] if TABLES[name].partition_column else None)
    made.write("preference_pairs", pairs)
    made.write("online_pairs", table(ONLINE_PAIRS, [online_pair(number) for number in range(6)]), ["dpo_rewards_online"])
    return made


@pytest.fixture
def write(lake: Lake, tmp_path: Path) -> Callable[..., Path]:
    def written(layout: str, recipe: str | None = None, source: str | None = None, split: str | None = None, **more: Any) -> Path:
        out = tmp_path / "out"
        export(out, Format(layout), Selection(recipe, Source(source) if source else None, split), lake, PROFILE, **more)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        return out

    return written


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


def test_a_source_is_exported_with_its_kept_pairs_only(lake: Lake, write: Callable[..., Path]) -> None:
    pairs = lake.scan("preference_pairs").collect()
    wanted = pairs.filter("is_kept", pl.col("source") == "rewrites", pl.col("split") == "train").sort("pair_id").to_dicts()
    found = lines(write("trl", source="rewrites"))
    assert [row["pair_id"] for row in found] == [row["pair_id"] for row in wanted]
    assert not pairs.filter(pl.col("pair_id").is_in(["f1"]), "is_kept").height  # the copy has the smaller id
    for row, pair in zip(found, wanted, strict=True):
        assert row["prompt"] == with_persona(pair["prompt"], pair["persona"])
        assert row["chosen"] == [{"role": "assistant", "content": pair["chosen"]}]
        assert row["rejected"] == [{"role": "assistant", "content": pair["rejected"]}]


def test_a_recipe_is_exported_as_it_trains(lake: Lake, write: Callable[..., Path], tmp_path: Path) -> None:
    own, none = (lines(write("trl", recipe=recipe, force=True)) for recipe in ("dpo_rewrites", "dpo_rewrites_no_persona"))
    rewards = lines(write("trl", recipe="dpo_rewards", force=True))
    assert len(own) == len(none) == len(rewards) > 10
    assert [row["pair_id"] for row in own] == [row["pair_id"] for row in none]
    assert {row["prompt"][0]["role"] for row in own} == {"system", "user"}
    assert {row["prompt"][0]["role"] for row in none} == {"user"}
    held = lines(write("trl", recipe="dpo_rewrites", split="validation", force=True))
    assert not {row["pair_id"] for row in held} & {row["pair_id"] for row in own}


def test_a_recipe_of_online_rounds_is_exported_with_the_pairs_of_its_rounds(write: Callable[..., Path]) -> None:
    found = lines(write("trl", recipe="dpo_rewards_online"))
    assert sorted(row["pair_id"] for row in found) == ["o0", "o1", "o2"]
    assert {row["source"] for row in found} == {"rewards"}
    assert {row["pair_id"]: row["prompt"][0]["role"] for row in found} == {"o0": "user", "o1": "system", "o2": "system"}
    (held,) = lines(write("trl", recipe="dpo_rewards_online", split="validation", force=True))
    assert held["pair_id"] == "o3"


def test_a_recipe_on_thumbs_is_exported_as_trl_reads_unpaired_examples(lake: Lake, write: Callable[..., Path], tmp_path: Path) -> None:
    rows = [
        {"pair_id": f"t{number}", "source": "thumbs", "split": "train", "is_kept": number < 4, "persona": "- short", "prompt": asked}
        | {"chosen": None, "rejected": None, side: f"reply {number}", "drop_reasons": []}
        for number, side in enumerate(("chosen", "rejected", "rejected", "chosen", "chosen"))
        for asked in ([{"role": "user", "content": f"request {number}"}],)
    ]
    lake.write("thumb_examples", table(THUMB_EXAMPLES, rows))
    found = {row["pair_id"]: row for row in lines(write("trl", recipe="kto_thumbs"))}
    assert {name: (row["completion"], row["label"]) for name, row in found.items()} == {
        f"t{number}": ([{"role": "assistant", "content": f"reply {number}"}], number in (0, 3)) for number in range(4)
    }
    assert {row["prompt"][0]["role"] for row in found.values()} == {"system"}
    assert not {"chosen", "rejected"} & set(found["t0"])
    for layout in ("sharegpt", "huggingface"):
        with pytest.raises(ValueError, match="recipe kto_thumbs has examples with one reply each and no pairs: give --format trl"):
            export(tmp_path / layout, Format(layout), Selection("kto_thumbs"), lake, PROFILE)
    with pytest.raises(
        ValueError, match="recipe sdpo_follow_ups has replies with follow-ups and no pairs: they are in the table follow_up"
    ):
        export(tmp_path / "trl", Format.TRL, Selection("sdpo_follow_ups"), lake, PROFILE)


def test_the_card_of_online_rounds_tells_their_policies_and_drops(write: Callable[..., Path]) -> None:
    text = (write("huggingface", recipe="dpo_rewards_online") / "README.md").read_text()
    for told in (
        "| replies | policy-1@1 |",
        "| replies | policy-2@1 |",
        "| `online_pairs` | `margin_too_small` | 2 | 33.3% |",
        "| rewards | train | 3 |",
    ):
        assert told in text


def test_sharegpt_has_the_layout_that_llama_factory_reads(write: Callable[..., Path]) -> None:
    found = lines(write("sharegpt", source="rewrites"))
    for row in found:
        speakers = [turn["from"] for turn in row["conversations"]]
        spoken = speakers[1:] if speakers[0] == "system" else speakers
        assert spoken == ["human", "gpt", "human"][: len(spoken)]
        assert len(spoken) in (1, 3)
        assert (row["chosen"]["from"], row["rejected"]["from"]) == ("gpt", "gpt")
        assert row["chosen"]["value"].startswith("It is")
    assert any(turn["from"] == "system" for row in found for turn in row["conversations"])


def test_a_dataset_folder_loads_as_its_card_says(lake: Lake, write: Callable[..., Path], tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl import is_conversational

    folder = write("huggingface")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "README.md",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
    ]
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    kept = lake.scan("preference_pairs").filter("is_kept").collect()
    assert {split: len(rows) for split, rows in loaded.items()} == dict(kept.group_by("split").len().iter_rows())
    header = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert header["dataset_info"]["features"] == loaded["train"].features._to_yaml_list()
    assert {split["name"]: split["num_examples"] for split in header["dataset_info"]["splits"]} == {
        n: len(rows) for n, rows in loaded.items()
    }
    assert "license" not in header
    assert is_conversational(loaded["train"][0])
    assert set(loaded["train"].column_names) == set(dataset_card.COLUMNS)
    (row,) = [row for row in loaded["train"] if row["pair_id"] == "f2"] or [row for row in loaded["validation"] if row["pair_id"] == "f2"]
    assert (row["meets_feedback"], row["reward_model"]) == (0.9, None)


TEXTS = {"prompt", "chosen", "rejected", "persona"}


@pytest.fixture
def of_few_users(tmp_path: Path) -> tuple[Lake, dict[str, str]]:
    """A lake of 240 kept pairs of 12 users, and the user of each: everything that one user's pairs can share is another user's nowhere."""
    made, rows = Lake(root=str(tmp_path / "lake")), []
    for number in range(240):
        user, conversation = f"{number % 12:032x}", f"conversation{number % 60}"
        rows.append(
            pair(digest_of("pair", number), number, user_id=user, split_group=user, source="rewards", strategy="best_of_n")
            | {"turn_id": f"{conversation}:1", "follow_up_id": f"{conversation}:3", "persona_line_ids": [f"line of {user}"]}
            | {"call_ids": [f"call of {conversation}", f"persona of {user}"], "persona": "", "split": "train", "reward_model": "rm@1"}
            | {"chosen_reward": number / 7, "rejected_reward": -number / 7, "is_off_policy": False, "asked_at": NOW}
        )
    for name in ("rewrite_pairs", "reward_pairs", "reasoning_pairs", "explicit_pairs"):
        made.write(name, TABLES[name].empty(), ["2023-04"] if TABLES[name].partition_column else None)
    made.write("preference_pairs", table(TABLES["preference_pairs"], rows))
    return made, {row["pair_id"]: row["user_id"] for row in rows}


def told(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


@pytest.mark.parametrize("recipe", [None, "dpo_rewards"])
@pytest.mark.parametrize("layout", ["huggingface", "trl", "sharegpt"])
def test_nothing_but_their_text_says_which_pairs_are_of_one_user(
    layout: str, recipe: str | None, of_few_users: tuple[Lake, dict[str, str]], tmp_path: Path
) -> None:
    made, users = of_few_users
    export(out := tmp_path / "out", Format(layout), Selection(recipe), made, PROFILE)
    file = next(out.rglob("train*.parquet")) if layout == "huggingface" else out
    rows = pl.read_parquet(file).to_dicts() if layout == "huggingface" else lines(file)
    assert len(rows) > 100
    order = [users[row["pair_id"]] for row in rows]
    for name in set(rows[0]) - TEXTS - {"conversations", "pair_id"}:
        owners: dict[str, list[str]] = {}
        for row, user in zip(rows, order, strict=True):
            owners.setdefault(told(row[name]), []).append(user)
        shared = [found for found in owners.values() if len(found) > 1]
        assert all(len(set(found)) > len(found) // 24 + 1 for found in shared), f"{name} tells users"
    rest = [told({name: row[name] for name in set(row) - TEXTS - {"conversations", "pair_id"}}) for row in rows]
    alike = [(a, b) for a, b in combinations(range(len(rows)), 2) if rest[a] == rest[b]]
    of_one = sum(order[a] == order[b] for a, b in alike)
    assert of_one <= 1.3 * len(alike) / 12, "all columns together tell no more than chance"
    neighbours = sum(one == other for one, other in pairwise(order))
    assert neighbours <= 2 * len(rows) / 12, "nor does the order of rows"
    everything = b"".join(path.read_bytes() for path in ([*out.rglob("*.*")] if out.is_dir() else [out]))
    for hidden in ("line of", "call of", "persona of", "conversation1", "2031-", *(set(users.values()) - {f"{0:032x}"})):
        assert hidden.encode() not in everything, hidden


def test_the_card_counts_what_was_dropped_and_tells_no_fingerprint_and_no_text(write: Callable[..., Path]) -> None:
    folder = write("huggingface", recipe="dpo_rewards")
    text = (folder / "README.md").read_text()
    assert "| `preference_pairs` | `exact_duplicate` | 1 |" in text
    assert "| `rewrite_pairs` | `length_ratio` | 1 | 3.1% |" in text
    for expected in ("`dpo_rewards`", "`rewards`: the best against", "m@1", "rm@1", "simulated", "Licence"):
        assert expected in text, expected
    assert "`rewrites`: " not in text
    assert "river" not in text.lower()
    everything = b"".join(path.read_bytes() for path in folder.rglob("*.*"))
    assert b"secret" not in everything


def test_trl_prepares_and_scores_what_was_exported(
    write: Callable[..., Path], tmp_path: Path, save_tiny_llama: Callable[..., None]
) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = load_dataset("json", data_files=str(write("trl", recipe="dpo_rewrites")), split="train", cache_dir=str(tmp_path / "cache"))
    save_tiny_llama(tmp_path / "model", ["Tell me about river It is miles Hello Yes short"])
    arguments = DPOConfig(
        output_dir=str(tmp_path / "o"), report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=4, max_length=None
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        args=arguments,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "model"),
    )
    assert len(trainer.train_dataset) == len(rows)
    batch = next(iter(trainer.get_train_dataloader()))
    assert float(trainer.compute_loss(trainer.model, batch)) == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize(
    ("layout", "selection", "message"),
    [
        ("duckdb", {"recipe": "dpo_rewrites"}, "takes no --recipe"),
        ("trl", {"recipe": "base"}, "recipe base trains on no pairs; give one of dpo_edits"),
        ("trl", {"recipe": "nope"}, "no recipe nope; there are base"),
        ("trl", {"source": "rewrites_logged"}, "no pair is selected; kept pairs by source: reasoning 1, rewards 38"),
    ],
)
def test_what_cannot_be_exported_says_why_and_leaves_nothing(
    lake: Lake, tmp_path: Path, layout: str, selection: dict[str, Any], message: str
) -> None:
    asked = Selection(selection.get("recipe"), Source(selection["source"]) if "source" in selection else None)
    with pytest.raises(ValueError, match=message):
        export(tmp_path / "out", Format(layout), asked, lake, PROFILE)
    assert not list(tmp_path.iterdir())


def test_a_role_that_sharegpt_does_not_know_names_the_pair(tmp_path: Path, lake: Lake) -> None:
    pairs = lake.scan("preference_pairs").filter(pl.col("pair_id") == "f2").collect()
    odd = pairs.with_columns(prompt=pl.Series([[{"role": "tool", "content": "x"}]], dtype=pairs.schema["prompt"]), split=pl.lit("train"))
    other = Lake(root=str(tmp_path / "lake"))
    other.write("preference_pairs", odd)
    with pytest.raises(ValueError, match="pair f2 has a message of role tool"):
        export(tmp_path / "out", Format.SHAREGPT, Selection(), other, PROFILE)
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


@pytest.mark.parametrize("layout", list(Format))
def test_what_is_there_is_replaced_only_by_force(write: Callable[..., Path], layout: Format, tmp_path: Path) -> None:
    first = write(layout)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="is there already; give another name, or --force"):
        write(layout)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert write(layout, force=True) == first


@pytest.mark.parametrize("layout", list(Format))
def test_a_place_that_cannot_be_written_is_named_and_nothing_is_made(lake: Lake, layout: Format, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path}/none/out: there is no folder {tmp_path}/none$"):
        export(tmp_path / "none" / "out", layout, Selection(), lake, PROFILE)
    with pytest.raises(ValueError, match=r"^/proc/out cannot be written: No such file or directory$"):
        export(Path("/proc/out"), layout, Selection(), lake, PROFILE)
    assert not list(tmp_path.iterdir())


def test_a_run_without_tables_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"there is no table in {tmp_path}/lake"):
        export(tmp_path / "out", Format.DUCKDB, Selection(), Lake(root=str(tmp_path / "lake")), PROFILE)
    assert not list(tmp_path.iterdir())


def test_force_replaces_no_folder_that_is_not_an_export_and_no_file_by_a_folder(write: Callable[..., Path], tmp_path: Path) -> None:
    write("huggingface")
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis.tex, which no export writes"):
        write("huggingface", force=True)
    with pytest.raises(ValueError, match="is a folder, and format trl writes a file"):
        write("trl", force=True)
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_the_command_speaks_plainly_of_what_is_not_there(tmp_path: Path) -> None:
    program = "import sys; from rlhi_dagster.cli.main import main; sys.argv = ['rlhi', *sys.argv[1:]]; main()"
    command = [sys.executable, "-c", program, "export", str(tmp_path / "x.jsonl"), "--format", "trl"]
    done = subprocess.run(command, env={"RLHI_DATA": str(tmp_path), "PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "preference_pairs has not been materialized" in done.stderr
    both = subprocess.run([*command, "--recipe", "dpo_rewards", "--source", "rewards"], capture_output=True, text=True, check=False)
    assert "not allowed with argument" in both.stderr


@pytest.fixture
def checkpoint(lake: Lake, tmp_path: Path, save_tiny_llama: Callable[..., None]) -> Lake:
    """A lake with a checkpoint of dpo_rewrites, its scores, and whatever else lies beside weights."""
    made = Lake(root=str(tmp_path / "lake"))
    made.write("preference_pairs", lake.scan("preference_pairs").collect())
    folder = made.artefact_path("checkpoints", "dpo_rewrites")
    save_tiny_llama(folder, ["Tell me about river It is miles Hello Yes short"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_name_or_path": str(folder)}))
    pl.DataFrame({"pair_id": ["f1", "f2"]}).write_parquet(folder / "pairs.parquet")
    (folder / "notes.txt").write_text("secret1")
    model = {"name": "rlhi-dpo_rewrites", "revision": weights_digest(folder), "path": "."}
    told = copy.deepcopy(MANIFEST) | {"model": model, "extra": {"persona": "own"}, "inputs": "secret2"}
    (folder / "manifest.json").write_text(json.dumps(told))
    (folder / "README.md").write_text("an older card")
    say_scores(made, f"rlhi-dpo_rewrites@{model['revision'][:16]}")
    return made


def say_scores(lake: Lake, model: str) -> None:
    reply = {
        "response_id": "secret3",
        "recipe": "dpo_rewrites",
        "prompt_id": "secret4",
        "benchmark": "user_eval",
        "reply": "r",
        "model": model,
    }
    score = {"recipe": "dpo_rewrites", "benchmark": "user_eval", "metric": "preferences_met", "value": 0.776, "n": 519, "judge": "town"}
    lake.write("responses", table(RESPONSES, [reply]), ["dpo_rewrites"])
    lake.write("scores", table(SCORES, [score]), ["dpo_rewrites"])


def test_a_checkpoint_for_the_hub_loads_and_tells_nothing_of_users_pairs_and_paths(checkpoint: Lake, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "hub"
    told = export_checkpoint(out, "dpo_rewrites", checkpoint)
    assert "hf upload YOUR-NAME/rlhi-dpo_rewrites" in told
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    everything = b"".join(file.read_bytes() for file in out.iterdir())
    for hidden in (b"secret", str(tmp_path).encode(), b"local_files_only", b"older card"):
        assert hidden not in everything, hidden
    assert "| user_eval | preferences_met | 0.776 |" in (out / "README.md").read_text()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    given = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    assert model.generate(**given, max_new_tokens=3, do_sample=False).shape[1] > given["input_ids"].shape[1]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_scores_of_other_weights_are_not_in_the_card(checkpoint: Lake, tmp_path: Path) -> None:
    say_scores(checkpoint, "rlhi-dpo_rewrites@0000000000000000")
    told = export_checkpoint(tmp_path / "hub", "dpo_rewrites", checkpoint)
    assert "without scores" in told
    assert "## Scores" not in (tmp_path / "hub/README.md").read_text()


def test_a_folder_that_holds_something_is_refused_and_an_empty_one_is_filled(checkpoint: Lake, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    out.mkdir()
    export_checkpoint(out, "dpo_rewrites", checkpoint)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ValueError, match="is there already and is no empty folder"):
        export_checkpoint(out, "dpo_rewrites", checkpoint)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize(
    ("recipe", "spoil", "message"),
    [
        ("base", None, "recipe base is the starting policy"),
        ("nope", None, "no recipe nope; there are base"),
        ("sft_rewrites", None, "sft_rewrites has no finished checkpoint; run: .* dg launch --assets checkpoints --partition sft_rewrites$"),
        ("dpo_rewrites", "forgotten.json", "trained on pairs of users who were forgotten since"),
        ("dpo_rewrites", "generation_config.json", "are not those that its manifest tells of"),
    ],
)
def test_what_cannot_be_given_away_says_why(checkpoint: Lake, tmp_path: Path, recipe: str, spoil: str | None, message: str) -> None:
    if spoil:
        (checkpoint.artefact_path("checkpoints", "dpo_rewrites") / spoil).write_text("{}")
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - what it says is looked at below
        export_checkpoint(tmp_path / "hub", recipe, checkpoint)
    assert re.search(message, failures.message(raised.value))
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_a_checkpoint_goes_to_no_folder_that_cannot_be_made(checkpoint: Lake) -> None:
    with pytest.raises(ValueError, match=r"^/proc/out cannot be written: No such file or directory$"):
        export_checkpoint(Path("/proc/out"), "dpo_rewrites", checkpoint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hub", "OUT"], "--hub takes --recipe and OUT"),
        (["--hub", "--recipe", "dpo_rewrites", "OUT", "--force"], "no --split or --force"),
        (["--hub", "--recipe", "dpo_rewrites"], "wants the file or folder to write, once"),
        (["--hub", "--recipe", "dpo_rewrites", "OUT", "--out", "OUT"], "wants the file or folder to write, once"),
        (["--hub", "--source", "rewards", "OUT"], "--hub takes --recipe"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(checkpoint: Lake, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command_line(arguments, checkpoint, tmp_path)


def test_the_command_writes_a_checkpoint(checkpoint: Lake, tmp_path: Path) -> None:
    told = command_line(["--hub", "--recipe", "dpo_rewrites", "--out", "OUT"], checkpoint, tmp_path)
    assert told.startswith(f"{tmp_path / 'OUT'}: the checkpoint of dpo_rewrites")
    assert (tmp_path / "OUT/model.safetensors").is_file()


def command_line(arguments: list[str], lake: Lake, folder: Path) -> str:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    given = parser.parse_args(["export", *(str(folder / each) if each == "OUT" else each for each in arguments)])
    return command.run(given, lake, PROFILE)


def test_a_pair_of_a_recipe_is_shown_as_the_model_sees_it(checkpoint: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHI_DATA", str(tmp_path))
    weights = checkpoint.artefact_path("checkpoints", "dpo_rewrites")
    weights.rename(checkpoint.artefact_path("policy"))
    pairs = checkpoint.scan("preference_pairs").filter("is_kept", pl.col("source") == "rewrites", pl.col("persona") != "").collect()
    pair = pairs.sort("pair_id").row(0, named=True)
    shown = training_command.run(argparse.Namespace(recipe="dpo_rewrites", pair=pair["pair_id"]))
    assert shown.startswith(f"{pair['pair_id']} ({pair['split']}), dpo_rewrites, rlhi-dpo_rewrites@")
    plain = shown.replace("|", "").replace("⏎", "")
    assert pair["persona"] in plain
    for side in ("chosen", "rejected"):
        assert "".join(re.findall(r"\[([^\]]*)\]", shown.split(f"{side}: ")[1].split("\n\n" + "rejected")[0])) == f"{pair[side]}<|eot_id|>"


def test_a_pair_is_found_by_the_beginning_of_its_id() -> None:
    rows = pl.DataFrame({"pair_id": ["ab", "abc", "b"]})
    assert training_command.picked(rows, "r", None)["pair_id"] == "ab"
    assert training_command.picked(rows, "r", "abc")["pair_id"] == "abc"
    assert training_command.picked(rows, "r", "ab")["pair_id"] == "ab"
    with pytest.raises(ValueError, match="2 pairs of recipe r have ids that begin with a; give more"):
        training_command.picked(rows, "r", "a")
    with pytest.raises(ValueError, match="recipe r has no pair whose id begins with x"):
        training_command.picked(rows, "r", "x")
    with pytest.raises(ValueError, match="recipe r has no pair"):
        training_command.picked(rows.clear(), "r", None)
