"""What a win rate would be if both replies had the same style: Arena-Hard's style control.

The style of a reply is its length and how densely it has Markdown headers, list items and bold text outside of code blocks. A logistic
regression explains who wins by the model and by the four differences to the opponent; the style-controlled win rate is its prediction at no
difference.
Source: lmarena/arena-hard-auto (v2.0: show_result.py and add_markdown_info.py), after Li et al. 2024, *Does style matter?*

Our choices: differences are divided by their standard deviation but not centred. There they are centred over the battles of all models; for
one model alone that would put its own style at 0 and control for nothing. A token is four characters, for no tokenizer is the field's.
Coefficients of the style are held a little towards 0 (L2, C = 100), so that they stay finite where all battles are won.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

FEATURES = ("length", "headers", "lists", "bold")
RESAMPLES = 200
_CODE = re.compile(r"```[^`]*```")
_MARKS = (
    re.compile(r"^#{1,6}\s", re.MULTILINE),
    re.compile(r"^[^\S\n]*+(?:\d+\.|[-*+])\s", re.MULTILINE),
    re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
)
_CHARACTERS_A_TOKEN = 4

Floats = npt.NDArray[np.float64]


def style(reply: str) -> tuple[float, ...]:
    """Tokens, headers, list items and bold pieces of a reply."""
    text = _CODE.sub("", reply)
    return (len(reply) / _CHARACTERS_A_TOKEN, *(float(len(mark.findall(text))) for mark in _MARKS))


def differences(mine: Floats, theirs: Floats) -> Floats:
    """How the styles of pairs of replies differ, each feature in standard deviations.

    Args:
        mine: Shape (pairs, 4), as `style` gives them.
        theirs: The same of the opponents.
    """
    tokens = np.maximum(mine[:, :1], 1), np.maximum(theirs[:, :1], 1)
    density = mine[:, 1:] / tokens[0], theirs[:, 1:] / tokens[1]
    found = np.hstack([(tokens[0] - tokens[1]) / (tokens[0] + tokens[1]), (density[0] - density[1]) / (density[0] + density[1] + 1)])
    spread = found.std(axis=0)
    scaled: Floats = np.divide(found, spread, out=np.zeros_like(found), where=spread > 0)
    return scaled


def controlled(won: Floats, counts: Floats, styles: Floats, items: npt.NDArray[np.str_], seed: int = 0) -> tuple[float, float, float]:
    """The style-controlled win rate with a 95 % interval by a bootstrap over items.

    Args:
        won: Shape (battles,): 1, 0, or 0.5 for a tie.
        counts: Shape (battles,): as how many battles each counts.
        styles: Shape (battles, 4): as `differences` gives them, mine less theirs.
        items: Shape (battles,): the item of each battle; those of one item are drawn together.
        seed: Of the bootstrap.
    """
    _, index = np.unique(items, return_inverse=True)
    size, rng = int(index.max()) + 1, np.random.default_rng(seed)
    draws = [np.bincount(rng.integers(0, size, size), minlength=size)[index] for _ in range(RESAMPLES)]
    low, high = np.quantile([_at_no_difference(won, counts * drawn, styles) for drawn in draws], [0.025, 0.975])
    return _at_no_difference(won, counts, styles), float(low), float(high)


def _at_no_difference(won: Floats, counts: Floats, styles: Floats) -> float:
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression

    weights = np.concatenate([counts * won, counts * (1 - won)])
    if weights[: len(won)].sum() == 0 or weights[len(won) :].sum() == 0:
        return float(won[0])
    model = LogisticRegression(C=100.0, max_iter=1000)
    model.fit(np.tile(styles, (2, 1)), np.repeat([1, 0], len(won)), sample_weight=weights)
    return float(expit(model.intercept_[0]))
