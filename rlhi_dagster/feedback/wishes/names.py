"""Names of groups of similar texts: by key phrases, or by a chat model.

What belongs here: both. What does not: which groups there are (``clusters``), and which model plays the role (``roles``).

Key phrases are class-based TF-IDF: words and pairs of words that many users of a group say and few other groups do. A phrase counts once a
user, and names a group only if two of its users say it. Scripts that put no spaces between words give pairs of signs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rlhi_dagster.engines.base import ChatRequest
from rlhi_dagster.engines.questions import Block, Chat, Shown, question, template
from rlhi_dagster.feedback.aspects import windows

PHRASES = 3
"""In a name."""
LEAST_USERS = 2
"""Of a group, that say a phrase of its name."""
MOST_READ = 500
"""Texts of a group that key phrases are looked for in."""
SHOWN = 12
"""Texts of a group that a model reads."""
SHOWN_CHARACTERS = 600
LONGEST = 60
"""Characters of a model's name for a group."""
SCHEMA = json.dumps({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False})

_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff"
"""Of vowels and accents, which Python does not count as letters."""
_WORD = re.compile(rf"[{_NO_SPACES}]|(?:(?![{_NO_SPACES}])[^\W\d_]|[{_MARKS}]){{2,}}")
_SIGN = re.compile(f"[{_NO_SPACES}]")

Said = tuple[str, str]
"""A user and what they said."""


def key_phrases(groups: Sequence[Sequence[Said]], others: Sequence[Said]) -> list[str | None]:
    """Name each group by what its users say and others do not.

    Args:
        groups: What was said in each.
        others: What was said outside of them, which tells what is common.

    Returns:
        A name for each; ``None`` where no two users of a group share a word that counts.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    read = [said[:MOST_READ] for said in (*groups, others)]
    of_user: dict[tuple[int, str], list[str]] = {}
    for number, said in enumerate(read):
        for user, text in said:
            of_user.setdefault((number, user), []).append(text)
    if not any(_phrases([text]) for said in read for _, text in said):
        return [None] * len(groups)
    vectorizer = CountVectorizer(analyzer=_phrases, binary=True)
    by_user = vectorizer.fit_transform(of_user.values())
    place = ([number for number, _ in of_user], range(len(of_user)))
    users = csr_matrix((np.ones(len(of_user)), place), shape=(len(read), len(of_user))) @ by_user
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(users)
    words = vectorizer.get_feature_names_out()
    return [_named(words, weights[number].toarray()[0], users[number].toarray()[0]) for number in range(len(groups))]


def _named(words: Sequence[str], weights: np.ndarray, users: np.ndarray) -> str | None:
    said = np.flatnonzero(users >= LEAST_USERS)
    chosen: list[str] = []
    for place in sorted(said.tolist(), key=lambda place: (-round(float(weights[place]), 9), words[place])):
        if len(chosen) < PHRASES and not any(words[place] in other or other in words[place] for other in chosen):
            chosen.append(words[place])
    return ", ".join(chosen) or None


def _phrases(texts: Sequence[str]) -> list[str]:
    """Words but for the commonest English ones, and pairs of neighbours; of signs without spaces between them the pairs alone."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found: list[str] = []
    for text in texts:
        for window in windows(text):
            words = [word for word in _WORD.findall(window.lower()) if word not in ENGLISH_STOP_WORDS]
            found += [word for word in words if not _SIGN.match(word)]
            found += [
                f"{left}{right}" if _SIGN.match(left) else f"{left} {right}"
                for left, right in pairwise(words)
                if bool(_SIGN.match(left)) == bool(_SIGN.match(right))
            ]
    return found


@dataclass(frozen=True, slots=True)
class ChatNamer:
    """A chat model that names groups.

    Attributes:
        chat: The model.
        question: What is asked; `prompts/group_name.md`.
    """

    chat: Chat
    question: str

    @classmethod
    def with_default_prompt(cls, chat: Chat) -> ChatNamer:
        """A namer with ``prompts/group_name.md``."""
        return cls(chat, template("group_name"))

    def names(self, groups: Sequence[Sequence[Said]], what: str) -> list[tuple[str | None, str]]:
        """A name for each group, ``None`` where the model gave none, and the call that gave it.

        Args:
            groups: What was said in each, what is to be shown first; one text of a user is.
            what: What a name says of a group, for the model.
        """
        answers = self.chat([self._request(group, what) for group in groups])
        return [(_name(answer.text), answer.call_id) for answer in answers]

    def _request(self, group: Sequence[Said], what: str) -> ChatRequest:
        of_user: dict[str, str] = {}
        for user, text in group:
            of_user.setdefault(user, text)
        shown: dict[str, Shown] = {"messages": [Block("message", text) for text in list(of_user.values())[:SHOWN]], "what": what}
        return ChatRequest(question(self.question, shown, dict.fromkeys(shown, SHOWN_CHARACTERS)), json_schema=SCHEMA)


def _name(reply: str | None) -> str | None:
    name = " ".join(json.loads(reply)["name"].split()) if reply else ""
    return name if 0 < len(name) <= LONGEST else None
