"""The reward engine on tiny random models of each layout: what it computes, what it refuses, and that company changes no reward."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from rlhi_dagster.engines import reward_prefix
from rlhi_dagster.engines.ask import fulfil
from rlhi_dagster.engines.base import Messages, RewardAnswer, RewardRequest
from rlhi_dagster.engines.control_tokens import control_tokens_of
from rlhi_dagster.engines.loading import reward_engine
from rlhi_dagster.engines.models import ModelRef
from rlhi_dagster.engines.read import read_rewards
from rlhi_dagster.engines.reward_layouts import Athene
from rlhi_dagster.engines.rewards import TransformersRewardEngine
from rlhi_dagster.engines.settings import TransformersSettings
from rlhi_dagster.store.responses import ResponseStore
from rlhi_dagster.training.policy import CHAT_TEMPLATE
from rlhi_dagster.workers.train_policy import build_tokenizer

TEXTS = ["Cook the rice for ten minutes.", "Plant tulips in spring!", "How do I clean windows?"]
CONTEXT = 160
MARKER = "<|reward|>"
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,  # wide, so that a reward depends on all that is read
}


def a_tokenizer(**special: str) -> Any:
    tokenizer = build_tokenizer(TEXTS * 20, 300)
    tokenizer.add_special_tokens({"cls_token": MARKER, **special})
    return tokenizer


def save_classifier(folder: Path, kind: Any = LlamaForSequenceClassification, tokenizer: Any = None, **changes: Any) -> ModelRef:
    tokenizer = tokenizer or a_tokenizer()
    shape = SHAPE | {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT, "num_labels": 1}
    config = {LlamaForSequenceClassification: LlamaConfig, LlamaForCausalLM: LlamaConfig, Qwen3ForSequenceClassification: Qwen3Config}
    torch.manual_seed(3)
    kind(config.get(kind, BertConfig)(**(shape | {"pad_token_id": tokenizer.pad_token_id} | changes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelRef("tiny", "r1", str(folder))


def save_athene(folder: Path, tokenizer: Any = None, marker: int | None = None, **changes: Any) -> ModelRef:
    """Written by hand: a Llama's weights under ``model``, a head ``v_head``, and the name of the architecture."""
    tokenizer = tokenizer or a_tokenizer()
    torch.manual_seed(4)
    config = LlamaConfig(**(SHAPE | {"vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT} | changes))
    weights = {f"model.{name}": weight.clone() for name, weight in LlamaModel(config).state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights | {"v_head.weight": torch.randn(1, config.hidden_size)}, folder / "model.safetensors", {"format": "pt"})
    described = config.to_dict() | {"architectures": ["AtheneForSequenceClassification"]}
    described |= {"cls_token_id": tokenizer.convert_tokens_to_ids(MARKER) if marker is None else marker}
    (folder / "config.json").write_text(json.dumps(described))
    tokenizer.save_pretrained(folder)
    return ModelRef("athene", "r1", str(folder))


def change_weights(ref: ModelRef, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = Path(ref.source) / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def change_json(ref: ModelRef, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    file = Path(ref.source) / name
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def load(ref: ModelRef, batch_size: int = 64, dtype: Any = "float32") -> TransformersRewardEngine:
    settings = TransformersSettings(device="cpu", dtype=dtype, batch_size=batch_size, chunk_size=1000)
    engine = reward_engine(ref, settings)
    assert isinstance(engine, TransformersRewardEngine)
    return engine


def judged(request: str, reply: str, persona: str = "") -> RewardRequest:
    system = [{"role": "system", "content": persona}] if persona else []
    return RewardRequest([*system, {"role": "user", "content": request}, {"role": "assistant", "content": reply}])


def candidates() -> list[RewardRequest]:
    """Replies of all lengths to prompts of different lengths, one prompt with a single reply, one reply twice."""
    replies = ["yes " * length for length in (1, 4, 20)] + ["", "yes yes no", "yes "]
    asked = [judged(text * repeats, reply, persona) for text, repeats, persona in [*PROMPTS] for reply in replies]
    return [judged("alone", "so it is"), *asked]


PROMPTS = [(TEXTS[0], 1, ""), (TEXTS[0], 1, "Likes it short."), (TEXTS[1], 3, "Likes it short."), (TEXTS[2], 1, "")]


def answers(engine: TransformersRewardEngine, requests: list[RewardRequest]) -> list[RewardAnswer]:
    found = list(chain.from_iterable(engine.score((str(number), request) for number, request in enumerate(requests))))
    assert len(found) == len(requests)
    return [dict(found)[str(number)] for number in range(len(requests))]


def scores(engine: TransformersRewardEngine, requests: list[RewardRequest]) -> list[float]:
    found = answers(engine, requests)
    assert [answer.error for answer in found] == [None] * len(found)
    return [float(answer.reward or 0.0) for answer in found]


def by_hand(ref: ModelRef, engine: TransformersRewardEngine, requests: list[RewardRequest], head: str) -> list[float]:
    """Each conversation alone, with control tokens as text, through the bare Llama, its last token's hidden state times the head."""
    ending = [engine.tokenizer.convert_tokens_to_ids(MARKER)] if head == "v_head.weight" else []
    rows = []
    for request in requests:
        said = control_tokens_of(engine.tokenizer).messages(request.messages)
        text = engine.tokenizer.apply_chat_template(said, tokenize=False)
        rows.append(engine.tokenizer(text, add_special_tokens=False)["input_ids"] + ending)
    return of_rows(ref, rows, head)


def of_rows(ref: ModelRef, rows: list[list[int]], head: str) -> list[float]:
    """Each row of tokens alone, as ``by_hand``."""
    weights = load_file(Path(ref.source) / "model.safetensors")
    backbone = LlamaModel(LlamaConfig.from_pretrained(ref.source)).eval()
    backbone.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items() if name != head})
    rewards = []
    for ids in rows:
        with torch.inference_mode():
            rewards.append(float(backbone(torch.tensor([ids])).last_hidden_state[0, -1] @ weights[head][0]))
    return rewards


HEADS = {save_classifier: "score.weight", save_athene: "v_head.weight"}


@pytest.mark.parametrize("save", HEADS)
def test_a_reward_is_the_last_tokens_hidden_state_times_the_head(tmp_path: Path, save: Any) -> None:
    ref = save(tmp_path)
    engine = load(ref)
    expected = by_hand(ref, engine, candidates(), HEADS[save])
    assert scores(engine, candidates()) == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 3) for value in expected}) == 1 + len(PROMPTS) * 5


@pytest.fixture(
    params=[
        lambda folder: save_classifier(folder),
        lambda folder: save_classifier(folder, Qwen3ForSequenceClassification, head_dim=8),
        lambda folder: save_classifier(folder, Qwen3ForSequenceClassification, head_dim=8, use_sliding_window=True, sliding_window=8),
        lambda folder: save_classifier(folder, BertForSequenceClassification, num_attention_heads=2),
        lambda folder: save_athene(folder),
    ],
    ids=["llama", "qwen3", "qwen3-sliding", "bert", "athene"],
)
def ref(request: pytest.FixtureRequest, tmp_path: Path) -> ModelRef:
    return request.param(tmp_path)


def test_no_reward_depends_on_company_order_or_batch_size(ref: ModelRef) -> None:
    engine, requests = load(ref), candidates()
    together = scores(engine, requests)
    assert [scores(engine, [request])[0] for request in requests] == pytest.approx(together, abs=1e-4)
    assert scores(engine, requests[::-1])[::-1] == pytest.approx(together, abs=1e-4)
    for batch_size in (1, 5):
        assert scores(load(ref, batch_size), requests) == pytest.approx(together, abs=1e-4)
    assert max(together) - min(together) > 0.1


def read_tokens(engine: TransformersRewardEngine, requests: list[RewardRequest]) -> int:
    """How many tokens the model's first layer reads, padding among them."""
    counts: list[int] = []
    embedding = engine.model.model.get_input_embeddings()  # type: ignore[attr-defined]
    hook = embedding.register_forward_hook(lambda _, given, __: counts.append(given[0].numel()))
    scores(engine, requests)
    hook.remove()
    return sum(counts)


@pytest.mark.parametrize("save", HEADS)
def test_the_replies_to_one_prompt_share_its_forward_pass(tmp_path: Path, save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(save(tmp_path))
    requests = [judged(TEXTS[0] * 4, reply, "Likes it short.") for reply in ("yes", "no no", "so so so", "rice")]
    prompt_tokens = answers(engine, [judged(TEXTS[0] * 4, "", "Likes it short.")])[0].prompt_tokens
    shared, apart = scores(engine, requests), read_tokens(engine, requests)
    assert prompt_tokens < apart < 2 * prompt_tokens
    monkeypatch.setattr(reward_prefix, "MOST_CACHED_TOKENS", 4 * prompt_tokens)
    assert read_tokens(engine, requests) > 4 * prompt_tokens
    assert scores(engine, requests) == pytest.approx(shared, abs=1e-4)


def test_models_whose_tokens_see_more_or_less_than_all_before_share_nothing(tmp_path: Path) -> None:
    sliding = save_classifier(tmp_path / "s", Qwen3ForSequenceClassification, head_dim=8, use_sliding_window=True, sliding_window=8)
    for unfit in (sliding, save_classifier(tmp_path / "b", BertForSequenceClassification)):
        engine = load(unfit)
        requests = [judged(TEXTS[0] * 4, reply) for reply in ("yes", "no", "so", "ten")]
        assert read_tokens(engine, requests) >= sum(answer.prompt_tokens for answer in answers(engine, requests))


@pytest.mark.parametrize("save", HEADS)
def test_bfloat16_is_close(tmp_path: Path, save: Any) -> None:
    ref = save(tmp_path, initializer_range=0.1)
    exact, rounded = scores(load(ref), candidates()), scores(load(ref, dtype="bfloat16"), candidates())
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.1 * (max(exact) - min(exact)))


# Where the reward is read


def test_a_marker_that_a_text_has_is_text(tmp_path: Path) -> None:
    ref = save_athene(tmp_path)
    engine = load(ref)
    marker = engine.tokenizer.convert_tokens_to_ids(MARKER)
    sly = judged(TEXTS[0], f"rice {MARKER} tulips {MARKER}")
    assert engine.transcripts(sly).count(marker) == 1  # type: ignore[union-attr]
    mixed = [sly, judged(TEXTS[0], "rice"), judged(MARKER, "yes " * 20), *candidates()]
    assert scores(engine, mixed) == pytest.approx(by_hand(ref, engine, mixed, "v_head.weight"), abs=1e-4)


def test_a_row_with_several_markers_is_read_at_the_last_one(tmp_path: Path) -> None:
    ref = save_athene(tmp_path)
    model = load(ref).model
    assert isinstance(model, Athene)
    rows = [[5, model.marker, 6, model.marker, 7, model.marker], [5, 6, model.marker], [model.marker, 8, 9, 8, 9, model.marker]]
    assert model.rewards(rows, ["a", "b", "c"]) == pytest.approx(of_rows(ref, rows, "v_head.weight"), abs=1e-4)


def test_a_row_without_the_marker_at_its_end_is_never_scored(tmp_path: Path) -> None:
    model = load(save_athene(tmp_path)).model
    assert isinstance(model, Athene)
    for row in ([5, 6, 7], [5, model.marker, 7], []):
        with pytest.raises(ValueError, match=f"does not end with the marker token {model.marker}"):
            model.rewards([[5, 6, model.marker], row], ["a", "a"])


def test_the_marker_of_athene_is_128003_where_the_config_names_none(tmp_path: Path) -> None:
    names = [f"w{number}" for number in range(128_000)] + ["<|begin|>", "<|end|>", "<|pad|>", MARKER]
    names += [f"<|reserved_{number}|>" for number in range(128_256 - len(names))]
    words = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<|begin|>", eos_token="<|end|>", cls_token=MARKER)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for each in messages %} {{ each['role'] }} {{ each['content'] }} {{ eos_token }}{% endfor %}"
    )
    ref = save_athene(tmp_path, tokenizer, hidden_size=8, intermediate_size=8)
    change_json(ref, "config.json", lambda config: config.pop("cls_token_id"))
    engine = load(ref)
    requests = [judged("w1 w77000 w12", reply) for reply in ("w3", "w3 w4 w127999", "w5 w6")]
    assert engine.transcripts(requests[0])[-2:] == [128_001, 128_003]  # type: ignore[index]
    assert scores(engine, requests) == pytest.approx(by_hand(ref, engine, requests, "v_head.weight"), abs=1e-4)


def without_pad_in_config(ref: ModelRef) -> None:
    change_json(ref, "config.json", lambda config: config.pop("pad_token_id", None))


def negative_pad_in_config(ref: ModelRef) -> None:
    change_json(ref, "config.json", lambda config: config.update(pad_token_id=-1))


def without_pad_in_tokenizer(ref: ModelRef) -> None:
    change_json(ref, "tokenizer_config.json", lambda config: config.pop("pad_token"))


def pads_alike_with_the_end(ref: ModelRef) -> None:
    without_pad_in_config(ref)
    change_json(ref, "tokenizer_config.json", lambda config: config.update(pad_token=config["eos_token"]))


def pads_otherwise_than_the_config(ref: ModelRef) -> None:
    change_json(ref, "tokenizer_config.json", lambda config: config.update(pad_token=MARKER))


def leaves_labels_out(ref: ModelRef) -> None:
    change_json(ref, "config.json", lambda config: [config.pop(name, None) for name in ("id2label", "label2id", "num_labels")])


@pytest.mark.parametrize(
    "trap",
    [
        without_pad_in_config,
        negative_pad_in_config,
        without_pad_in_tokenizer,
        pads_alike_with_the_end,
        pads_otherwise_than_the_config,
        leaves_labels_out,
    ],
)
def test_neither_padding_nor_labels_left_out_move_the_reward(tmp_path: Path, trap: Callable[[ModelRef], None]) -> None:
    ref = save_classifier(tmp_path)
    trap(ref)
    engine = load(ref)
    assert scores(engine, candidates()) == pytest.approx(by_hand(ref, engine, candidates(), "score.weight"), abs=1e-4)


def test_a_model_that_pads_with_its_end_token_is_read_where_transformers_reads_it(tmp_path: Path) -> None:
    """Before the end token, wherever that stands; a reply without a token of its own leaves nothing else behind the prompt."""
    tokenizer = a_tokenizer()
    ref = save_classifier(tmp_path, tokenizer=tokenizer, pad_token_id=tokenizer.eos_token_id)
    engine = load(ref)
    bare = LlamaForSequenceClassification.from_pretrained(tmp_path).eval()
    rows = [engine.transcripts(request) for request in candidates()]
    with torch.inference_mode():
        expected = [float(bare(torch.tensor([row])).logits[0, 0]) for row in rows]
    assert scores(engine, candidates()) == pytest.approx(expected, abs=1e-4)


def test_there_is_one_begin_token_though_the_tokenizer_adds_its_own(tmp_path: Path) -> None:
    tokenizer = a_tokenizer()
    begin = (str(tokenizer.bos_token), int(tokenizer.bos_token_id))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    assert tokenizer("hi")["input_ids"][0] == begin[1]
    engine = load(save_classifier(tmp_path, tokenizer=tokenizer))
    row = engine.transcripts(judged("hi", "yes"))
    assert isinstance(row, list)
    assert row.count(begin[1]) == 1


# Error rows


@pytest.mark.parametrize("save", HEADS)
def test_a_conversation_beyond_the_context_is_an_error_row_and_nothing_is_cut(tmp_path: Path, save: Any) -> None:
    ref = save(tmp_path)
    fits, longer, short = "yes" * 20, "tulips " * 200, "yes"
    tokens = answers(load(ref), [judged("hi", fits)])[0].prompt_tokens
    change_json(ref, "config.json", lambda config: config.update(max_position_embeddings=tokens))
    found = answers(load(ref), [judged("hi", text) for text in (fits, fits + "!", longer, short)])
    assert [(answer.error or "").split(":")[0] for answer in found] == ["", "conversation_too_long", "conversation_too_long", ""]
    assert found[1].error == f"conversation_too_long: {found[1].prompt_tokens} tokens, context {tokens}"
    assert (found[1].reward, found[1].prompt_tokens > tokens) == (None, True)


def test_athene_reads_4096_tokens_and_not_one_more(tmp_path: Path) -> None:
    engine = load(save_athene(tmp_path, max_position_embeddings=8192))
    longest = 4096 - answers(engine, [judged("hi", "")])[0].prompt_tokens
    fits, longer = answers(engine, [judged("hi", "#" * longest), judged("hi", "#" * (longest + 1))])
    assert (fits.error, fits.prompt_tokens, fits.reward is None) == (None, 4096, False)
    assert longer.error == "conversation_too_long: 4097 tokens, context 4096"


def test_the_tokenizers_own_limit_counts(tmp_path: Path) -> None:
    ref = save_classifier(tmp_path)
    change_json(ref, "tokenizer_config.json", lambda config: config.update(model_max_length=30))
    assert str(answers(load(ref), [judged("hi", "tulips " * 40)])[0].error).endswith("context 30")


DROPS_SYSTEM = CHAT_TEMPLATE.replace("{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}")
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT_TEMPLATE


@pytest.mark.parametrize("template", [DROPS_SYSTEM, REFUSES_SYSTEM])
def test_a_persona_that_the_template_would_not_show_is_an_error_row(tmp_path: Path, template: str) -> None:
    tokenizer = a_tokenizer()
    tokenizer.chat_template = template
    engine = load(save_classifier(tmp_path, tokenizer=tokenizer))
    hidden, shown = answers(engine, [judged("hi", "yes", "Likes it short."), judged("hi", "yes")])
    assert str(hidden.error).startswith("no_system_role: ")
    assert "reward.persona_placement to first_user" in str(hidden.error)
    assert (hidden.reward, shown.error) == (None, None)


def test_an_order_of_roles_that_the_template_refuses_is_an_error_row(tmp_path: Path) -> None:
    tokenizer = a_tokenizer()
    tokenizer.chat_template = (
        "{% if messages|length > 3 %}{{ raise_exception('Secret: ' + messages[0]['content']) }}{% endif %}" + CHAT_TEMPLATE
    )
    engine = load(save_classifier(tmp_path, tokenizer=tokenizer))
    refused, fine = answers(engine, [RewardRequest(judged("hi", "yes").messages * 2), judged("hi", "yes")])
    assert (refused.error, fine.error) == ("template_refused: TemplateError in the model's chat template", None)


def test_a_reward_that_is_no_number_is_an_error_row(tmp_path: Path) -> None:
    ref = save_athene(tmp_path)
    change_weights(ref, lambda weights: weights["v_head.weight"].fill_(float("nan")))
    assert {answer.error for answer in answers(load(ref), candidates())} == {"not_finite: nan"}


# Refused checkpoints


def causal(folder: Path) -> ModelRef:
    return save_classifier(folder, LlamaForCausalLM)


def two_outputs(folder: Path) -> ModelRef:
    return save_classifier(folder, num_labels=2)


def biased(folder: Path) -> ModelRef:
    ref = save_classifier(folder)
    change_weights(ref, lambda weights: weights.update({"score.bias": torch.ones(1)}))
    return ref


def headless(folder: Path) -> ModelRef:
    ref = save_athene(folder)
    change_weights(ref, lambda weights: weights.pop("v_head.weight"))
    return ref


def a_layer_short(folder: Path) -> ModelRef:
    ref = save_athene(folder)
    change_json(ref, "config.json", lambda config: config.update(num_hidden_layers=3))
    return ref


def athene_as_classifier(folder: Path) -> ModelRef:
    ref = save_athene(folder)
    change_json(ref, "config.json", lambda config: config.update(architectures=["LlamaForSequenceClassification"]))
    return ref


def wide_head(folder: Path) -> ModelRef:
    ref = save_athene(folder)
    change_weights(ref, lambda weights: weights.update({"v_head.weight": torch.ones(3, 16)}))
    return ref


def other_width(folder: Path) -> ModelRef:
    ref = save_athene(folder)
    change_json(ref, "config.json", lambda config: config.update(intermediate_size=48))
    return ref


def marker_outside_of_the_weights(folder: Path) -> ModelRef:
    return save_athene(folder, marker=100_000)


def marker_outside_of_the_tokenizer(folder: Path) -> ModelRef:
    return save_athene(folder, marker=5_000, vocab_size=6_000)


def no_template(folder: Path) -> ModelRef:
    tokenizer = a_tokenizer()
    tokenizer.chat_template = None
    return save_classifier(folder, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        (causal, r"tiny@r1 is no reward model as LlamaForSequenceClassification: its weights lack score.weight$"),
        (two_outputs, r"tiny@r1 has 2 outputs \(score.weight\); a reward model has one$"),
        (biased, r"LlamaForSequenceClassification, which has no place for score.bias$"),
        (headless, r"athene@r1 is no reward model as AtheneForSequenceClassification: its weights lack v_head.weight$"),
        (a_layer_short, r"its weights lack model.layers.2.input_layernorm.weight, .* and 6 more$"),
        (athene_as_classifier, r"its weights lack score.weight$"),
        (wide_head, r"athene@r1 has 3 outputs \(v_head.weight\); a reward model has one$"),
        (other_width, r"down_proj.weight has the shape \(16, 32\), its config.json says \(16, 48\)$"),
        (marker_outside_of_the_weights, r"athene@r1: the marker token 100000 is not in the vocabulary of model and tokenizer$"),
        (marker_outside_of_the_tokenizer, r"the marker token 5000 is not in the vocabulary"),
        (no_template, r"tiny@r1: its tokenizer has no chat template"),
    ],
)
def test_a_checkpoint_that_is_no_such_reward_model_is_refused(tmp_path: Path, save: Callable[[Path], ModelRef], reason: str) -> None:
    ref = save(tmp_path)
    with pytest.raises(ValueError, match=reason):
        load(ref)


@pytest.mark.parametrize("save", HEADS)
def test_pickles_are_refused(tmp_path: Path, save: Any) -> None:
    ref = save(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        load(ref)


def test_both_names_of_athenes_architecture_are_known(tmp_path: Path) -> None:
    ref = save_athene(tmp_path)
    expected = scores(load(ref), candidates())
    change_json(ref, "config.json", lambda config: config.update(architectures=["CustomAutoModelForSequenceClassification"]))
    assert scores(load(ref), candidates()) == expected


# Through the store


@pytest.mark.parametrize("save", HEADS)
def test_rewards_pass_through_the_store_once(tmp_path: Path, save: Any) -> None:
    ref = save(tmp_path / "model")
    engine, store = load(ref, batch_size=4), ResponseStore(tmp_path / "store", "reward", ref.identity)
    identity = engine.settings.identity
    asked = [*candidates(), judged("hi", "tulips " * 200)]
    requests = {request.key(ref, identity): request for request in asked}
    given: list[str] = []

    def answer(calls: Iterator[tuple[str, RewardRequest]]) -> Iterator[list[tuple[str, RewardAnswer]]]:
        for finished in engine.score(calls):
            given.extend(key for key, _ in finished)
            yield finished

    first = fulfil(requests, store, answer, lambda request: request.settings(identity), chunk_size=7)
    again = fulfil(requests, store, answer, lambda request: request.settings(identity), chunk_size=7)
    assert (first.answered, first.errors, again.answered, again.cached) == (len(requests), 1, 0, len(requests))
    assert sorted(given) == sorted(requests)
    *kept, long = read_rewards(list(requests), store)
    assert [answer.reward for answer in kept] == pytest.approx(scores(engine, list(requests.values())[:-1]), abs=1e-4)
    assert str(long.error).startswith("conversation_too_long: ")


def test_no_request_is_no_work(tmp_path: Path) -> None:
    assert answers(load(save_classifier(tmp_path)), []) == []


def test_messages_are_left_as_they_are(tmp_path: Path) -> None:
    request = judged("hi", "yes", "Likes it short.")
    before: Messages = [dict(message) for message in request.messages]
    scores(load(save_athene(tmp_path)), [request])
    assert request.messages == before
