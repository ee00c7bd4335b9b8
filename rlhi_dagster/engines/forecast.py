"""What model calls will cost before they are made, told from what calls of the same kind have cost, and limits on it.

What belongs here: records of finished work, rates, forecasts, limits. What does not: which requests an asset makes (``resources``,
``planning``).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from rlhi_dagster.engines.settings import EngineSettings
from rlhi_dagster.engines.stats import CallStats

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, until something has been measured."""
_RECORDS = 20


class Limits(BaseModel, frozen=True, extra="forbid"):
    """What the model calls of one asset may cost in one run; over it nothing is started, or what has been started ends."""

    max_requests: int | None = Field(default=None, ge=0, description="Requests that are not in the store yet; null for no limit.")
    max_tokens: int | None = Field(default=None, ge=0, description="Tokens read and written; null for no limit.")
    max_hours: float | None = Field(default=None, ge=0, description="Time of the engine; null for no limit.")
    max_usd: float | None = Field(default=None, ge=0, description="US dollars; null for no limit.")

    def shared(self, processes: int) -> Limits:
        """What each of several processes may cost that work side by side; they take the same time."""
        counts = {name: getattr(self, name) for name in ("max_requests", "max_tokens")}
        divided = {name: None if count is None else -(-count // processes) for name, count in counts.items()}
        return Limits(**divided, max_hours=self.max_hours, max_usd=None if self.max_usd is None else self.max_usd / processes)


class OverLimitError(RuntimeError):
    """Model calls would cost, or have cost, more than the profile's ``limits`` allow."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What finished work of an engine has cost per unit.

    Attributes:
        tokens_per_character: Prompt tokens by characters of the messages.
        completion_tokens: Written per request; 0 where nothing was.
        seconds_per_token: Of the engine, by tokens read and written.
        basis: What was measured, for people.
    """

    tokens_per_character: float
    completion_tokens: float
    seconds_per_token: float
    basis: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a piece of work would cost; ``None`` is unknown.

    Attributes:
        requests: Wanted.
        missing: Those that are not in the store.
        prompt_tokens: To read.
        completion_tokens: To write; the most possible where nothing has been measured.
        seconds: Time of the engine, without loading.
        cost_usd: Charged by the server, or the machine's price for that time; unknown where neither has a price.
        basis: Where the numbers come from.
    """

    requests: int
    missing: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float | None
    cost_usd: float | None
    basis: str

    def __str__(self) -> str:
        """One line for people."""
        if not self.missing:
            return f"all {self.requests:,} answers are in the store"
        parts = [
            f"{self.missing:,} of {self.requests:,} requests to answer",
            f"about {self.prompt_tokens:,} tokens in" + (f" and {self.completion_tokens:,} out" if self.completion_tokens else ""),
            *([f"{self.seconds:,.0f} s"] if self.seconds is not None else []),
            *([f"${self.cost_usd:,.2f}"] if self.cost_usd else []),
        ]
        return f"{', '.join(parts)} ({self.basis})"

    def __add__(self, other: Forecast) -> Forecast:
        """Both pieces of work."""
        return Forecast(
            self.requests + other.requests,
            self.missing + other.missing,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            _sum(self.seconds, other.seconds),
            _sum(self.cost_usd, other.cost_usd),
            self.basis if self.missing or not other.missing else other.basis,
        )


NOTHING = Forecast(0, 0, 0, 0, 0.0, 0.0, "all answers are in the store")


def note(root: Path, kind: str, model: str, engine: str, stats: CallStats) -> None:
    """Record what a finished piece of work cost, for later forecasts; nothing answered is nothing to record.

    Args:
        root: Folder of the response store.
        kind: Of the answers.
        model: ``ModelRef.identity``.
        engine: ``identity`` of the engine's settings.
        stats: What it cost.
    """
    if not stats.answered:
        return
    folder = root / "runs" / kind
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    entry = {"at": now.isoformat(), "model": model, "engine": engine, **asdict(stats)}
    final = folder / f"{now:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}.json"
    partial = final.with_suffix(".partial")
    partial.write_text(json.dumps(entry))
    partial.replace(final)


def measured(root: Path, kind: str, model: str, engine: str) -> Rates | None:
    """Rates of the latest work of the same engine: with the same model, or else with any; ``None`` if there is none."""
    of_engine = [each for each in _records(root / "runs" / kind) if each["engine"] == engine]
    chosen = [each for each in of_engine if each["model"] == model][:_RECORDS] or of_engine[:_RECORDS]
    if not chosen:
        return None
    names = [field.name for field in fields(CallStats)]
    total = sum((CallStats(**{name: each[name] for name in names if name in each}) for each in chosen), CallStats())
    models = {each["model"] for each in chosen}
    prompt_tokens = total.prompt_tokens or total.prompt_characters / CHARACTERS_PER_TOKEN  # an encoder counts none
    return Rates(
        tokens_per_character=prompt_tokens / max(total.prompt_characters, 1),
        completion_tokens=total.completion_tokens / total.answered,
        seconds_per_token=total.seconds / max(prompt_tokens + total.completion_tokens, 1),
        basis=f"{total.answered:,} answers of {models.pop() if len(models) == 1 else f'{len(models)} models'}"
        + (", whose tokens are estimates" if total.estimated else ""),
    )


def _records(folder: Path) -> list[dict[str, Any]]:
    """Newest first."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"), reverse=True)]


def forecast(
    requests: int, missing_characters: Sequence[int], most_new_tokens: int, rates: Rates | None, settings: EngineSettings | None, model: str
) -> Forecast:
    """What it would cost to answer what is missing.

    Args:
        requests: Wanted in all.
        missing_characters: Length of each missing request's messages.
        most_new_tokens: Longest reply in tokens; 0 for rewards and vectors.
        rates: What has been measured.
        settings: Of the engine, for prices; ``None`` where nobody charges.
        model: Name of the model, for prices.
    """
    missing = len(missing_characters)
    prompt = round(sum(missing_characters) * (rates.tokens_per_character if rates else 1 / CHARACTERS_PER_TOKEN))
    written = round(missing * min(rates.completion_tokens if rates and rates.completion_tokens else most_new_tokens, most_new_tokens))
    seconds = (prompt + written) * rates.seconds_per_token if rates else (None if missing else 0.0)
    basis = rates.basis if rates else "nothing measured yet: 4 characters a token, the longest replies"
    return Forecast(requests, missing, prompt, written, seconds, _cost(prompt, written, seconds, settings, model), basis)


def _cost(prompt: int, written: int, seconds: float | None, settings: EngineSettings | None, model: str) -> float | None:
    if settings is None or prompt + written == 0:
        return 0.0
    if settings.kind == "openai" and (price := settings.prices.get(model)):
        return (prompt * price.prompt_usd_per_million + written * price.completion_usd_per_million) / 1e6
    return seconds / 3600 * settings.usd_per_hour if settings.usd_per_hour and seconds is not None else None


def check(limits: Limits, planned: Forecast) -> None:
    """Refuse work that would exceed a limit.

    Raises:
        OverLimitError: It would, or its cost is limited and cannot be told; the message says which setting.
    """
    if planned.missing and limits.max_usd is not None and planned.cost_usd is None:
        raise OverLimitError(
            "limits.max_usd is set, but nobody knows what the calls cost: give the engine `prices` of its model, or `usd_per_hour`"
        )
    hours = None if planned.seconds is None else planned.seconds / 3600
    tokens = planned.prompt_tokens + planned.completion_tokens
    _compare(limits, "would take", planned.missing, tokens, hours, planned.cost_usd)


def guard(limits: Limits, spent: CallStats) -> None:
    """End work that has exceeded a limit; errors as of ``check``."""
    tokens = spent.prompt_tokens + spent.completion_tokens
    verb = "have taken, by estimated tokens," if spent.estimated else "have taken"
    _compare(limits, verb, spent.answered, tokens, spent.seconds / 3600, spent.cost_usd)


def _compare(limits: Limits, verb: str, requests: int, tokens: int, hours: float | None, usd: float | None) -> None:
    for name, value, shown in (
        ("max_requests", requests, f"{requests:,} requests"),
        ("max_tokens", tokens, f"{tokens:,} tokens"),
        ("max_hours", hours, f"{hours or 0:,.2f} hours"),
        ("max_usd", usd, f"${usd or 0:,.2f}"),
    ):
        limit = getattr(limits, name)
        if limit is not None and value is not None and value > limit:
            raise OverLimitError(
                f"the model calls {verb} {shown}, over limits.{name} {limit:,} of the profile: raise it, or ask for less. "
                "Answers that were made are kept."
            )


def _sum(one: float | None, two: float | None) -> float | None:
    return None if one is None or two is None else one + two
