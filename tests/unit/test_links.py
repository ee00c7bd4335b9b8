"""Every link of a document leads to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(path for path in ROOT.rglob("*.md") if not {".venv", ".venv-vllm"} & set(path.relative_to(ROOT).parts))
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
_PLAIN = re.compile(r"(?<![\w/.-])(docs/[\w/-]+\.md)(?:#([\w-]+))?")


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(next(name for name in (slug, *(f"{slug}-{n}" for n in range(1, 99))) if name not in found))
    return found


def dead(text: str, folder: Path, itself: Path) -> Iterator[str]:
    """Links of a text that lead nowhere."""
    for target in _LINK.findall(_CODE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (folder / name) if name else itself
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8"))):
            yield target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert list(dead(document.read_text(encoding="utf-8"), document.parent, document)) == []


def test_documents_that_the_code_names_are_there() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    named = {
        f"{file}: {name}{f'#{anchor}' if anchor else ''}"
        for file in listed
        if Path(file).suffix in {".py", ".yaml", ".html", ".md"} or Path(file).name == "Makefile"
        for name, anchor in _PLAIN.findall((ROOT / file).read_text(encoding="utf-8"))
        if not (ROOT / name).is_file() or (anchor and anchor not in anchors((ROOT / name).read_text(encoding="utf-8")))
    }
    assert named == set()


def test_dead_links_are_found(tmp_path: Path) -> None:
    (there := tmp_path / "there.md").write_text("# A heading, `coded`\n\n```sh\n# no heading\n```\n## Twice\n## Twice\n")
    text = "[a](there.md#a-heading-coded) [b](gone.md) [c](there.md#no-heading) [d](#twice-1) [e](https://x.org) `[f](code.md)`"
    assert list(dead(text, tmp_path, there)) == ["gone.md", "there.md#no-heading"]
