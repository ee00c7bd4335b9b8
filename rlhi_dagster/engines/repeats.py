"""Whether samples differ: what a server that takes no notice of seeds gives the same however often it is asked.

What belongs here: counting samples that are equal, and telling of it. What does not: how samples get their seeds (``ChatRequest``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from rlhi_dagster.engines.base import ChatAnswer, ChatRequest, Sampling

TELLING = 20
"""So many samples that all equal an earlier one are told of while the work goes on, fewer once it has ended."""
_REMEMBERED = 4096
"""Prompts whose samples are compared; samples of the same messages are asked for one after the other."""


class Repeats:
    """Compares the samples of the same messages as they are answered.

    Choices, replies under a schema and likeliest replies (temperature 0) are left out: they are meant to be few, or the same.

    Attributes:
        further: Samples that came after another one of the same messages.
        repeated: Those of them that say what an earlier one says. Short replies do so by chance.
    """

    def __init__(self, requests: Mapping[str, ChatRequest], sampling: Sampling, log: Callable[[str], None]) -> None:
        self.further = self.repeated = 0
        self._requests, self._is_drawn, self._log = requests, sampling.temperature > 0, log
        self._said: dict[int, set[int]] = {}
        self._is_told = False

    def watched(self, answers: Iterable[list[tuple[str, ChatAnswer]]]) -> Iterator[list[tuple[str, ChatAnswer]]]:
        """The answers as they come; says once if all samples are equal."""
        for finished in answers:
            for key, answer in finished:
                self._note(self._requests[key], answer)
            self._tell(TELLING)
            yield finished
        self._tell(1)

    def _note(self, request: ChatRequest, answer: ChatAnswer) -> None:
        if answer.text is None or request.choices or request.json_schema or not self._is_drawn:
            return
        asked = hash(tuple((message["role"], message["content"]) for message in request.messages))
        if asked not in self._said and len(self._said) == _REMEMBERED:
            del self._said[next(iter(self._said))]
        said, text = self._said.setdefault(asked, set()), hash(answer.text)
        self.further += bool(said)
        self.repeated += text in said
        said.add(text)

    def _tell(self, least: int) -> None:
        if self.further >= least and self.repeated == self.further and not self._is_told:
            self._is_told = True
            self._log(
                f"{self.repeated:,} of {self.further:,} further samples of the same messages equal an earlier one: if replies can differ, "
                "the server takes no notice of seeds, and asking for several samples buys nothing"
            )
