r"""Does a reply decline what it was asked for?

What belongs here: the lexicon, as data, its reader, and how many complaints are about refusals. What does not: what becomes of a pair with a refusal (``filters``).

A refusal opens by declining: it says that it will not, may not or cannot do the thing. A reply that says so and then gives much of what
was asked is none, so one with code in it does not count, and one with a list or longer than ``MOST_CHARACTERS`` only if it declines on
principle (law, harm, policy). English, Spanish, Portuguese, French, German, Italian, Russian and Chinese.
"""

# ruff: noqa: E501 -- a pattern on one line can be searched and compared with its neighbours

from __future__ import annotations

import re

import polars as pl

OPENING_CHARACTERS = 220
MOST_CHARACTERS = 700
LIST_ENTRIES = 3

_DO = r"(?:provide|assist|help|fulfil+|generate|create|write|produce|support|engage|continue|comply|participate|complete|answer|respond|discuss|offer|give|share|do|make|access|browse|view|see|open|display|draw|show|recommend|endorse|condone|encourage|facilitate|translate|perform|send|play|say|tell|describe|use|accommodate|meet|process|promote|allow|proceed|directly|physically|actually|predict|find|search|retrieve|analy[sz]e|review|advise|suggest|teach|reproduce|reveal|download|execute|run|upload|watch|listen|determine|identify|confirm|verify)"
_DECLINES = re.compile(
    rf"""
    \bi(?:['’]m|\ am)\ (?:\w+\ )?(?:sorry|afraid)\b[^.!?\n]{{0,60}}\b(?:can(?:no|['’])?t|won['’]t|unable|not\ able|not\ (?:possible|appropriate|comfortable)|do\ not|don['’]t)\b
    |\b(?:sorry|apologi(?:[sz]e|es))\b[^.!?\n]{{0,40}}\bi\ (?:can(?:no|['’])?t|won['’]t|am\ (?:unable|not\ able)|do(?:\ not|n['’]t)\ have)\b
    |\bi(?:['’]m|\ am)\ (?:\w+\ )?(?:unable|not\ able|not\ (?:allowed|permitted|programmed|designed|capable|comfortable))\b
    |\bi\ (?:\w+\ )?(?:can(?:no|['’])?t|will\ not|won['’]t|must\ decline|refuse|decline)\ (?:to\ )?(?!see\ any)(?:\w+\ ){{0,2}}{_DO}\b
    |\bi(?:['’]m|\ am)\ not\ going\ to\ (?:\w+\ ){{0,2}}{_DO}\b|\bi\ (?:must|have\ to|need\ to)\ (?:\w+\ )?(?:decline|refuse)\b
    |\bi(?:['’]d|\ would)\ rather\ not\b|\bi\ (?:do\ not|don['’]t)\ feel\ comfortable\b|\bi\ (?:will\ not|won['’]t)\ take\ part\b
    |\bas\ an?\ (?:ai|artificial\ intelligence|text-based|language\ model|responsible)\b[^.!?\n]{{0,80}}\b(?:can(?:no|['’])?t|(?:un|not\ )able|incapable|not\ (?:capable|programmed|designed|ethical|appropriate))\b
    |\bi\ do(?:\ not|n['’]t)\ have\ (?:\w+\ ){{0,2}}(?:access|ability|capabilit\w+|permission)\b
    |\b(?:it\ is|it['’]s)\ not\ (?:\w+\ )?(?:appropriate|ethical|possible\ for\ me)\b|\b(?:violates?|against)\ (?:\w+\ ){{0,3}}(?:polic|guidelines|content)
    |\b(?:no\ puedo|no\ me\ es\ posible|no\ tengo\ (?:la\ capacidad|acceso)|no\ estoy\ (?:autorizad|programad|capacitad))\b
    |\b(?:n[aã]o\ (?:posso|consigo|tenho\ (?:acesso|a\ capacidade))|n[aã]o\ sou\ capaz)\b
    |\bje\ (?:ne\ (?:peux|suis)\ pas|n['’]ai\ pas\ (?:acc[eè]s|la\ capacit[eé])|ne\ peux)\b
    |\b(?:ich\ kann\b[^.!?\n]{{0,60}}\b(?:nicht|keine?n?)|(?:leider|tut\ mir\ leid)\b[^.!?\n]{{0,60}}\b(?:nicht|keine?n?)|bin\ nicht\ in\ der\ lage)\b
    |\b(?:non\ posso|non\ sono\ in\ grado|non\ ho\ (?:accesso|la\ capacit[aà]))\b
    |(?:\bя\ не\ (?:могу|имею|способ\w+|в\ состоянии)|к\ сожалению[^.!?\n]{{0,40}}не\ (?:могу|имею)|\bне\ могу\ (?:выполнить|предоставить|помочь|ответить|создать))
    |(?:我(?:无法|無法|不能|不会|没有能力|没有权限)|(?:抱歉|对不起|對不起)[^。！？\n]{{0,16}}(?:无法|無法|不能|不会|没有)|作为(?:一个|一名)?(?:AI|人工智能)[^。！？\n]{{0,24}}(?:无法|不能|不会|没有能力))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ON_PRINCIPLE = re.compile(
    r"\b(?:il)?legal|ethic|inappropriate|harm|\bpolic(?:y|ies)\b|guidelines|explicit|dangerous|ilegal|étic|dañin|nocivo|illég|éthique|illegal|unethisch|schädlich|незаконн|этич|вредн|违法|非法|不道德|有害|不当",
    re.IGNORECASE,
)
_LIST_ENTRY = re.compile(r"(?:^|\s)(?:[-*•]|\d+[.)、])\s", re.MULTILINE)


def is_refusal(reply: str) -> bool:
    """Whether ``reply`` declines rather than answers."""
    said = reply.strip()
    if "```" in said:
        return False
    opening = said[:OPENING_CHARACTERS]
    gives_much = len(said) > MOST_CHARACTERS or len(_LIST_ENTRY.findall(said)) >= LIST_ENTRIES
    if gives_much and not _ON_PRINCIPLE.search(opening):
        return False
    return bool(_DECLINES.search(opening))


def complaints(pairs: pl.DataFrame) -> dict[str, int | float]:
    """How many complaints are about a refusal, and that they came to nothing.

    Args:
        pairs: Columns ``rejected`` (what was complained about; null where nothing was) and ``is_kept``.

    Returns:
        `complaints_about_refusals`, their share of all complaints, and how many of them were dropped and kept. None is kept unless a
        profile switches the filter off.
    """
    made = pairs.drop_nulls("rejected")
    about = made.filter(pl.Series([is_refusal(text) for text in made["rejected"]], dtype=pl.Boolean()))
    kept = int(about["is_kept"].sum())
    return {
        "complaints_about_refusals": len(about),
        "complaints_about_refusals_fraction": len(about) / max(len(made), 1),
        "complaints_about_refusals_dropped": len(about) - kept,
        "complaints_about_refusals_kept": kept,
    }
