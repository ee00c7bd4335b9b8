"""Memory forecast: what training a model will take on each device, told before its weights are loaded.

What belongs here: the arithmetic, and what to change where it does not fit. What does not: a model's numbers, what a device has and what
was measured (``workers/memory_gauge.py``).

Weights, gradients and AdamW's two moments are counted as in ZeRO (Rajbhandari et al., 2020), activations tensor by tensor as in
Korthikanti et al. (2022), for a Llama block with attention that keeps no score matrix. Of a block's saved tensors, with width h, keys'
width k and feed-forward width f, each token has: both norms 3 h each (input, normalised, output), attention 3 h + 2 k (query, output
twice; key and value), the feed-forward part 4 f (gate, up, gate's activation, product). The head is TRL's: tiles of at most 4,096 tokens
by 32,768 words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlhi_dagster.training.settings import LoraSettings, PairSettings, TrainingSettings

GIB = 2**30
_TILE_TOKENS, _TILE_WORDS = 4096, 32_768
_DEVICES = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, as far as memory goes.

    Attributes:
        parameters: All of them.
        layers: Blocks.
        width: Of the residual stream.
        key_width: Of all keys of a token.
        feed_forward_width: Inner width of the feed-forward part.
        vocabulary: Words of the head; 0 for a model without one.
        adapted: Inputs plus outputs of all linear layers that adapters would stand beside.
    """

    parameters: int
    layers: int
    width: int
    key_width: int
    feed_forward_width: int
    vocabulary: int
    adapted: int


@dataclass(frozen=True, slots=True)
class Load:
    """What a training run puts on a model.

    Attributes:
        sequences: Sequences of one row: two of a pair that is compared, one otherwise.
        longest: Tokens of the longest sequence.
        keeps_start: Whether a frozen copy of the start is held to compare with; adapters are taken off instead.
        is_on_cpu: Whether devices have no memory of their own: then the whole model, as each process loads it, lies beside the shares.
        reply_logits: Tokens of the longest reply, where the probabilities of all words are held for each of its tokens; else 0.
    """

    sequences: int
    longest: int
    keeps_start: bool
    is_on_cpu: bool = False
    reply_logits: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """GiB on each device at the peak of a step."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    head: float
    start: float

    @property
    def total(self) -> float:
        """All parts."""
        return sum(asdict(self).values())

    def __str__(self) -> str:
        """In words."""
        parts = ", ".join(f"{name} {value:.2f}" for name, value in asdict(self).items() if value >= 0.005)
        return f"{self.total:.2f} GiB ({parts})"


class MemoryForecastError(ValueError):
    """Training will not fit."""


def loading(shape: Shape, settings: TrainingSettings) -> float:
    """GiB of main memory that each process takes while it loads a model, whole, before the model or a share of it is on the device.

    Less where the file has the type that is loaded: then its pages are mapped, which processes have in common.
    """
    return shape.parameters * (2 if settings.lora and settings.bf16 else 4) / GIB


def forecast(shape: Shape, settings: TrainingSettings, load: Load, processes: int) -> Forecast:
    """What each of ``processes`` devices will hold."""
    shares = processes if settings.sharding == "fsdp2" else 1
    trained = settings.lora.rank * shape.adapted if settings.lora else shape.parameters
    frozen = shape.parameters if settings.lora else 0
    # Autocast keeps the weights of a forward pass in bfloat16 beside those in float32.
    weights = (frozen * (2 if settings.bf16 else 4) + trained * (6 if settings.bf16 else 4)) / shares
    # Of replicas, gradients are exchanged from buckets beside them.
    gradients = trained * 4 * (2 if processes > 1 and shares == 1 else 1) / shares
    # Of shares, two blocks are whole at a time, and the head from the forward pass to the end of the backward one.
    whole = 2 * shape.parameters / max(shape.layers, 1) + shape.vocabulary * shape.width
    gathered = whole * (2 if settings.bf16 else 4) if shares > 1 else 0.0
    tokens = settings.micro_batch_size * load.sequences * load.longest
    at_work = Forecast(
        weights=(weights + gathered) / GIB,
        gradients=gradients / GIB,
        optimiser=trained * 8 / shares / GIB,
        activations=(tokens * _token_bytes(shape, settings) + _mask_bytes(settings, load)) / GIB,
        head=(_logits_bytes(shape, settings, load) if load.reply_logits else _head_bytes(shape, settings, tokens)) / GIB,
        start=4 * shape.parameters / shares / GIB if load.keeps_start and not settings.lora else 0.0,
    )
    if not load.is_on_cpu or shares == 1:
        return at_work
    loaded = loading(shape, settings) + weights / GIB + at_work.start
    return replace(at_work, weights=at_work.weights + max(loaded - at_work.total, 0.0))


def check(name: str, shape: Shape, settings: TrainingSettings, load: Load, processes: int, available: float) -> Forecast:
    """The forecast of what is trained under ``name``.

    Args:
        name: For people.
        shape: Its model.
        settings: How it is trained.
        load: Its rows.
        processes: That train it together.
        available: GiB that each of them has.

    Raises:
        MemoryForecastError: It is more than that; the message says what would fit.
    """
    found = forecast(shape, settings, load, processes)
    if found.total > available:
        ways = advice(shape, settings, load, processes, available)
        do = f"set {', or '.join(ways)}" if ways else "no setting makes it fit: take a smaller model or a larger device"
        raise MemoryForecastError(f"{name}: training needs {found} a device, this one has {available:.2f} GiB: {do}")
    return found


def advice(shape: Shape, settings: TrainingSettings, load: Load, processes: int, available: float) -> list[str]:
    """Changes of the settings each of which makes training fit into ``available`` GiB; the mildest first."""
    ways = []
    for family in _changes(settings, processes):
        for change in family:
            changed = settings.model_copy(update=change)
            count = change.get("processes") or processes
            if forecast(shape, changed, load, count).total <= available:
                ways.append(" with ".join(f"{name}: {_written(value)}" for name, value in change.items()))
                break
    return ways


def _changes(settings: TrainingSettings, processes: int) -> Iterator[list[Mapping[str, Any]]]:
    """Families of changes to try, and of each its members in order."""
    rows = range(settings.micro_batch_size - 1, 0, -1)
    smaller: list[Mapping[str, Any]] = [{"micro_batch_size": n} for n in rows if settings.batch_size % (n * processes) == 0]
    least = dict(smaller[-1]) if smaller else {}
    less = least if settings.gradient_checkpointing else {"gradient_checkpointing": True, **least}
    if not settings.gradient_checkpointing:
        yield [{"gradient_checkpointing": True}]
    yield smaller
    if less:
        yield [less]
    if settings.sharding != "fsdp2" or processes == 1:
        counts = [n for n in _DEVICES if n > processes and settings.batch_size % (n * settings.micro_batch_size) == 0]
        shared: list[Mapping[str, Any]] = [{"sharding": "fsdp2", "processes": n} for n in counts]
        yield shared + [{"gradient_checkpointing": True, **change} for change in shared if not settings.gradient_checkpointing]
    if settings.lora is None:
        lora = {"lora": LoraSettings()}
        yield [lora, {**lora, **less}]


def _written(value: Any) -> str:
    """As in YAML."""
    if isinstance(value, LoraSettings):
        return f"{{rank: {value.rank}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _token_bytes(shape: Shape, settings: TrainingSettings) -> float:
    """Activations that a token leaves until the backward pass."""
    norms, attention, inner = 6 * shape.width, 3 * shape.width + 2 * shape.key_width, 4 * shape.feed_forward_width
    if not settings.bf16:
        stream, block = 4.0, 4.0 * (norms + attention + inner)
    else:
        # Norms work in float32, everything else in bfloat16; norms' outputs are cast for what reads them.
        stream = 2.0 if settings.lora else 4.0
        block = 4.0 * norms + 2.0 * (2 * shape.width + attention + inner)
    if settings.lora and settings.bf16:
        block += 4.0 * (6 * shape.width + shape.feed_forward_width)  # each adapter reads its input in float32
    if settings.gradient_checkpointing:
        return shape.layers * shape.width * stream + block
    return shape.layers * block


def _mask_bytes(settings: TrainingSettings, load: Load) -> float:
    """A packed pair's mask, as truth values and as numbers."""
    if not (isinstance(settings, PairSettings) and settings.shared_prefix):
        return 0.0
    return settings.micro_batch_size * (load.sequences * load.longest) ** 2 * 5.0


def _logits_bytes(shape: Shape, settings: TrainingSettings, load: Load) -> float:
    """Logits of model and teacher wherever some row of a pass has its reply, what is made of them at its own, and the head's gradient.

    Made of them are, in float32: of both the logits and the log-probabilities, the divergence, and two gradients.
    """
    rows = settings.micro_batch_size
    places = min(load.longest, rows * load.reply_logits)
    given = rows * places * 2 * (2.0 if settings.bf16 else 4.0)
    made = rows * load.reply_logits * 7 * 4.0
    return shape.vocabulary * (given + made + (0.0 if settings.lora else shape.width * 4.0))


def _head_bytes(shape: Shape, settings: TrainingSettings, tokens: int) -> float:
    """A tile of logits, its probabilities and gradient, and the head's gradient in float32 before it is added."""
    tile = min(tokens, _TILE_TOKENS) * min(shape.vocabulary, _TILE_WORDS)
    return tile * (10.0 if settings.bf16 else 12.0) + (0 if settings.lora else shape.vocabulary * shape.width * 4.0)
