"""The model calls of one asset body: which model plays a role, what it is asked, and what all of it cost.

What belongs here: the step from a role of the profile to a model behind the workers. What does not: what is asked (the stages' packages)
and how workers are run (``graph/resources.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import dagster as dg

from rlhi_dagster.base.lake import Lake
from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, RewardAnswer, RewardRequest
from rlhi_dagster.engines.model_settings import Player, Role
from rlhi_dagster.engines.models import ModelRef, read_manifest
from rlhi_dagster.engines.stats import CallStats
from rlhi_dagster.graph.declared_settings import Settings
from rlhi_dagster.graph.resources import Workers
from rlhi_dagster.training import artefacts

ARTEFACTS: Mapping[Role, str] = {"policy": "policy", "reward": "reward_model"}
"""Roles whose model is an artefact of the lake."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A model that can be asked, as the stages' packages call it.

    Attributes:
        calls: Whose calls they are.
        player: Who is asked, and how.
        model: The model.
        temperature: At which the role usually answers; ``None`` for the profile's.
    """

    calls: Calls
    player: Player
    model: ModelRef
    temperature: float | None

    def __call__(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """The answers, in order."""
        (answers,) = self.calls.ask([(self.model, requests)], self.player, self.temperature)
        return answers


class Calls:
    """Asks models for an asset, and counts what it cost.

    Args:
        context: Of the asset.
        workers: Who asks.
        settings: The profile, which says who plays which role.
        lake: Where the artefacts lie that play one.
    """

    def __init__(self, context: dg.AssetExecutionContext, workers: Workers, settings: Settings, lake: Lake) -> None:
        self._context, self._workers, self._profile, self._lake = context, workers, settings.profile, lake
        self._spent: CallStats | None = None

    def program(self, role: Role) -> str | None:
        """Name of the program that plays a role; ``None`` if a model does."""
        return self._profile.players(role)[0].program

    def model(self, role: Role) -> ModelRef:
        """The model that plays a role."""
        return self.find(self._profile.players(role)[0])

    def find(self, player: Player) -> ModelRef:
        """The model of a player: an artefact of the lake, or one that was made elsewhere.

        Raises:
            NotMadeError: The artefact has not been made.
            UnresolvedModelError: The model cannot be found; the message says why.
        """
        if player.owner in ARTEFACTS:
            return ModelRef.from_manifest(self._lake.artefact_path(ARTEFACTS[player.owner]))
        return self._workers.find(self._context, player.settings)

    def asked(self, role: Role, temperature: float | None = None) -> Asked:
        """The model that plays a role, ready to be asked; ``temperature`` as of `Player.drawing`."""
        return self.all_asked(role, temperature)[0]

    def all_asked(self, role: Role, temperature: float | None = None) -> list[Asked]:
        """The same of a role that several may play; programs, and reward models, which write nothing, are left out."""
        models = [player for player in self._profile.players(role) if player.program is None and player.owner != "reward"]
        return [Asked(self, player, self.find(player), temperature) for player in models]

    def ask(
        self, batches: Sequence[tuple[ModelRef, Sequence[ChatRequest]]], player: Player | None = None, temperature: float | None = None
    ) -> list[list[ChatAnswer]]:
        """Answers of several models, run as a player is; as the policy if none is given."""
        player = player or self._profile.players("policy")[0]
        answers, stats = self._workers.chat(self._context, batches, player.engine, player.drawing(temperature))
        self._count(stats)
        return answers

    def replay(self, model: ModelRef, dialogues: Mapping[str, Sequence[str]]) -> dict[str, list[ChatAnswer]]:
        """The policy's replies to whole conversations, turn by turn on its own history."""
        player = self._profile.players("policy")[0]
        answers, stats = self._workers.replay(self._context, model, dialogues, player.engine, player.sampling)
        self._count(stats)
        return answers

    def score(self, model: ModelRef, requests: Sequence[RewardRequest], player: Player | None = None) -> list[RewardAnswer]:
        """Rewards of a reward model, in order, run as a player is; as the role `reward` if none is given."""
        player = player or self._profile.players("reward")[0]
        answers, stats = self._workers.score(self._context, model, requests, player.engine)
        self._count(stats)
        return answers

    def rewards(self, requests: Sequence[RewardRequest]) -> tuple[str, list[RewardAnswer]]:
        """Identity of the reward model, and its rewards, in order; for want of data to train one on, errors that say so."""
        player = self._profile.players("reward")[0]
        folder = self._lake.artefact_path(ARTEFACTS["reward"])
        if player.owner == "reward" and artefacts.is_empty(folder):
            return "none", [RewardAnswer(None, f"no_reward_model: {read_manifest(folder)['why']}", 0)] * len(requests)
        model = self.find(player)
        return model.identity, self.score(model, requests)

    def metadata(self) -> dict[str, float]:
        """What the calls cost, under stable keys for the UI and without those that are 0; nothing if no model was to be asked."""
        if self._spent is None:
            return {}
        stats = self._spent
        rate = stats.completion_tokens / stats.seconds if stats.seconds else 0.0
        rounded = {"seconds": round(stats.seconds, 1), "cost_usd": round(stats.cost_usd, 4), "tokens_per_second": round(rate, 1)}
        return {f"calls/{name}": value for name, value in (asdict(stats) | rounded).items() if value}

    def _count(self, stats: CallStats) -> None:
        self._spent = stats if self._spent is None else self._spent + stats
