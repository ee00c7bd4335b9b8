"""The model card of a checkpoint: what it is, what it was trained on and how, how that went, and how to load it.

What belongs here: the text, from the manifest alone. What does not: the manifest (``workers/artefact.py``) and a folder for the Hub
(``export/hub.py``). A card holds no text of any conversation, no id of a pair and no path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rlhi_dagster.base.escapes import markdown, markdown_block, markdown_code, markdown_table, visible
from rlhi_dagster.personas.conditioning import with_persona

FILE = "README.md"
_METHODS = {
    "policy": "a language model of whole conversations, trained from scratch",
    "sft": "a language model fine-tuned on preferred replies",
    "dpo": "a language model trained on pairs of replies with Direct Preference Optimization ([DPO](https://arxiv.org/abs/2305.18290))",
    "kto": "a language model trained on replies that users gave a thumb up or down, with Kahneman-Tversky Optimization "
    "([KTO](https://arxiv.org/abs/2402.01306))",
    "sdpo": "a language model trained to write as it would have, had it been told what the user said next, by self-distillation "
    "([SDPO](https://arxiv.org/abs/2603.12273))",
    "reward": "a Bradley-Terry reward model of pairs of replies",
}
_TAGS = {
    "policy": [],
    "sft": ["sft", "trl"],
    "dpo": ["dpo", "trl"],
    "kto": ["kto", "trl"],
    "sdpo": ["sdpo", "trl"],
    "reward": ["reward-model", "trl"],
}
_ROWS = {"kto": "replies with a thumb", "sdpo": "replies with a follow-up"}
_PERSONA = {
    "own": " It was trained with what is known of the user in the system message, one line each, and without one where nothing was known.",
    "none": " It was trained without anything about the user in view: give it no persona.",
}
_HELD_OUT = {
    "loss": "loss",
    "preference_loss": "DPO term of it",
    "rewards/accuracies": "pair accuracy",
    "accuracy": "pair accuracy",
    "rewards/margins": "reward margin",
    "displacement": "fall of log p(preferred) since the start, nats a token",
    "memorisation": "held-out loss minus training loss, nats",
}
_CURVE = {"loss": "loss", "rewards/accuracies": "pair accuracy", "accuracy": "pair accuracy", "rewards/margins": "reward margin"}
_CURVE_POINTS = 6


def card(manifest: Mapping[str, Any], scores: Sequence[Mapping[str, Any]] = ()) -> str:
    """The text of ``README.md``.

    Args:
        manifest: Of an artefact that was trained here.
        scores: Rows of ``SCORES`` of this checkpoint.
    """
    header = visible(yaml.safe_dump(_header(manifest), sort_keys=False, allow_unicode=True))
    parts = [f"---\n{header}---", f"# {markdown(manifest['model']['name'])}", *_about(manifest), *_loading(manifest), *_data(manifest)]
    return "\n\n".join([*parts, *_training(manifest), *_gates(manifest), *_results(scores), *_limits(manifest)]) + "\n"


def _header(manifest: Mapping[str, Any]) -> dict[str, Any]:
    start, method = manifest["start"], manifest["method"]
    dataset = manifest["data"].get("hub_dataset")
    return {
        **({"base_model": start["name"]} if start and start["is_on_hub"] else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-classification" if method == "reward" else "text-generation",
        **({"datasets": [dataset]} if dataset else {}),
        "tags": [*_TAGS[method], "rlhi", *(["persona"] if _shows_persona(manifest) else [])],
    }


def _about(manifest: Mapping[str, Any]) -> list[str]:
    start = manifest["start"]
    began = f" It started from {markdown_code(start['name'])} at revision {markdown_code(start['revision'][:16])}." if start else ""
    simulated = " **The users are simulated.**" if manifest["data"].get("is_simulated") else ""
    return [
        f"This is {_METHODS[manifest['method']]}, made by rlhi-dagster after [reinforcement learning from human "
        f"interaction](https://arxiv.org/abs/2509.25137): {manifest['parameters'] / 1e6:,.1f} million parameters.{began}{simulated}",
        f"Weights: `{manifest['model']['revision'][:16]}`.",
    ]


def _loading(manifest: Mapping[str, Any]) -> list[str]:
    if manifest["method"] == "reward":
        return []
    shown = [
        *with_persona([], "- wants short answers" if _shows_persona(manifest) else ""),
        {"role": "user", "content": "How is mint grown?"},
    ]
    return [
        "## How to load it",
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        f"messages = {json.dumps(shown, indent=4)}\n"
        'given = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")\n'
        "reply = model.generate(**given, max_new_tokens=256)[0, given.input_ids.shape[1] :]\n"
        "print(tokenizer.decode(reply, skip_special_tokens=True))\n```",
        f"`vllm serve FOLDER` serves it.{_PERSONA.get(manifest['extra'].get('persona'), '')}",
    ]


def _data(manifest: Mapping[str, Any]) -> list[str]:
    data = manifest["data"]
    if not data:
        return []
    lines = [(markdown_code(source), f"{count:,}") for source, count in data["by_source"].items()]
    earlier = (
        f" Its start was trained on {manifest['earlier_pairs']:,} others before, in earlier rounds."
        if manifest.get("earlier_pairs")
        else ""
    )
    rows, others = _ROWS.get(manifest["method"], "pairs"), data["validation_pairs"]
    return [
        "## Training data",
        f"{data['pairs']:,} {rows} of {data['users']:,} users of {markdown_code(data['conversations'])}; another {others:,} {rows}, of "
        f"other users, chose the snapshot.{earlier} {manifest.get('pairs_too_long', 0):,} were too long and left out. Data version of "
        f"`{data['table']}`: `{data['data_version'][:16]}`; digest of the rows as shown: `{data['rows_digest'][:16]}`.",
        markdown_table((f"source of the {rows}", rows), lines),
    ]


def _training(manifest: Mapping[str, Any]) -> list[str]:
    hardware, code = manifest["hardware"], manifest["code"]
    device = markdown(hardware["name"])
    changed = {True: " with changes", False: "", None: ""}[code["is_modified"]]
    commit = f" at commit `{code['commit'][:12]}`{changed}" if code["commit"] else ""
    version = manifest["data"].get("code_version")
    used = ", ".join(f"{name} {number}" for name, number in manifest["packages"].items())
    return [
        "## Training",
        f"{manifest['chosen']['of']:,} steps of {manifest['effective_batch']} examples on {manifest['world_size']} device(s) took "
        f"{manifest['seconds']:,.0f} s on {device} ({hardware['count']} x {hardware['kind']}, {hardware['memory_gib']} GiB). "
        f"Code: rlhi-dagster {code['version']}{commit}{f', asset version {version}' if version else ''}. Packages: {used}.",
        markdown_table(("step", *_named(_CURVE, manifest["steps"])), _curve(manifest["steps"])),
        markdown_block(yaml.safe_dump(dict(manifest["settings"]), sort_keys=False), "yaml"),
    ]


def _gates(manifest: Mapping[str, Any]) -> list[str]:
    chosen, validation = manifest["chosen"], manifest["validation"]
    lines = [(title, _number(validation[name])) for name, title in _HELD_OUT.items() if name in validation]
    passed = "; ".join(f"step {each['step']} ({', '.join(each['past'])})" for each in chosen["passed_over"])
    said = [
        "## Which snapshot this is",
        f"Step {chosen['step']:,} of {chosen['of']:,}, out of {chosen['snapshots']} snapshots: {chosen['why']}."
        + (f" Past a bound and passed over: {passed}." if passed else ""),
    ]
    if lines:
        said.append(markdown_table(("on held-out users", ""), lines))
    if "step0_loss" in manifest:
        right = " of an example's weight; 0.5 is where it starts" if manifest["method"] == "kto" else "; ln 2 is 0.6931"
        said.append(f"Loss before the first step: {manifest['step0_loss']:.4f}{right}.")
    if "masks" in manifest:
        found = manifest["masks"]["train"]
        said.append(
            f"Loss lies on {found['loss_tokens']:,} of {found['tokens']:,} tokens. A check of the batches found it in each of "
            f"{found['rows']:,} rows on the replies and the marker that ends them, and nowhere else."
        )
    return said


def _results(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    if not scores:
        return []
    lines = [
        (
            markdown(row["benchmark"]),
            markdown(row["metric"]),
            _number(row["value"]),
            f"[{_number(row['ci_low'])}, {_number(row['ci_high'])}]",
            str(row["n"]),
            markdown(row["judge"]),
        )
        for row in scores
    ]
    return [
        "## Scores",
        "On held-out users and problems.",
        markdown_table(("benchmark", "metric", "value", "95 % interval", "n", "judge"), lines),
    ]


def _limits(manifest: Mapping[str, Any]) -> list[str]:
    simulated = manifest["data"].get("is_simulated")
    return [
        "## Limits",
        "- Nothing here makes it safe or truthful: preferences of users were learnt, with what is wrong in them.\n"
        "- What it was trained on may show in what it says; people's texts were redacted by rules, which miss things.\n"
        + ("- The users whose preferences it learnt are simulated.\n" if simulated else "")
        + "- No licence is given here. That of the start and that of the conversations apply.",
    ]


def _shows_persona(manifest: Mapping[str, Any]) -> bool:
    return manifest["extra"].get("persona") == "own"


def _named(titles: Mapping[str, str], points: Sequence[Mapping[str, float]]) -> list[str]:
    return [title for name, title in titles.items() if any(name in point for point in points)]


def _curve(points: Sequence[Mapping[str, float]]) -> list[tuple[str, ...]]:
    """A few points of the training curve, the first and the last among them."""
    last = len(points) - 1
    chosen = sorted({round(last * number / (_CURVE_POINTS - 1)) for number in range(_CURVE_POINTS)}) if points else []
    names = [name for name in _CURVE if any(name in point for point in points)]
    return [(str(int(points[at]["step"])), *(_number(points[at].get(name)) for name in names)) for at in chosen]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
