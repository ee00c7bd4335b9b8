"""The blocks of the guides, and running them as a reader would: one page after the other, in a folder with outputs of its own.

What belongs here: what a page asks its reader to type, write and see, and doing so. What does not: which pages there are and what is
expected of them (``tests.unit.test_guides``).

A shell block is run by bash; its ``rlhi`` is a client of this process, which has the libraries loaded. A block whose first line is a
comment with the name of a file is written to that file, and so is one whose paragraph ends in "as `FILE`:". Python without a name is run.
A `text` block after any of these is what they print; ``…`` in it stands for anything. What cannot be run has a comment in the line before
it, which nobody sees on the page: ``<!-- not run: WHY -->``; what needs a finished run has ``<!-- over a run -->``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import yaml

from rlhi_dagster import profiles
from rlhi_dagster.cli import main

ROOT = Path(__file__).parents[1]
FILES = ("yaml", "python", "text", "jsonl", "csv")
SHELLS = ("sh", "bash")
OVER_A_RUN = "over a run"
CHECKOUT = ("docs", "data/sample", "pyproject.toml", "assets", "rlhi_dagster")
"""What the reader's folder has of the checkout: guides are followed there."""
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (over a run|not run: [^>]+) -->\s*\Z")
_NAMED = re.compile(r"^# ([\w/.-]+\.\w+)\n")
_SAVED = re.compile(r"\bas\s+`([\w/.-]+\.\w+)`:\s*\Z")
_PORT = "GUIDES_PORT"
_SHIM = f"""#!{sys.executable} -IS
import os, sys
from multiprocessing.connection import Client
with Client(("127.0.0.1", int(os.environ["{_PORT}"]))) as asked:
    asked.send((sys.argv[1:], dict(os.environ), os.getcwd()))
    status, out, err = asked.recv()
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: Its page, from the root.
        line: Of its fence.
        language: What stands after the fence; empty if nothing does.
        text: Without the indentation of the fence.
        file: The file that the reader is to write it to, if any.
        why_not: Why it is not run, or ``OVER_A_RUN``; empty if it is run.
    """

    page: str
    line: int
    language: str
    text: str
    file: str
    why_not: str


class GuideError(AssertionError):
    """A guide does not work as written; the message names page and line."""


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        indent, language, inside = fence.groups()
        inside = re.sub(f"^{indent}", "", inside, flags=re.MULTILINE)
        before = text[: fence.start()]
        mark = _MARK.search(before)
        before = before[: mark.start()] if mark else before
        named = _NAMED.match(inside) if language in FILES else None
        saved = None if named or language not in FILES else _SAVED.search(before)
        file = (named or saved)[1] if named or saved else ""  # type: ignore[index]
        if named and not file.endswith((".yaml", ".py")):
            inside = inside.removeprefix(named[0])  # a comment is none there
        why_not = mark[1].removeprefix("not run: ") if mark else ""
        yield Block(str(page.relative_to(ROOT)), text[: fence.start()].count("\n") + 1, language, inside, file, why_not)


@dataclass
class Reader:
    """Somebody who follows a page: a folder, a shell's variables, names in a notebook, and what was printed last.

    Attributes:
        folder: Where the page's files lie.
        variables: Of the shell; `export` adds to them.
        instead: Text of profiles that is replaced, such as the name of a profile by that of a smaller one.
    """

    folder: Path
    variables: dict[str, str]
    instead: Mapping[str, str] = field(default_factory=dict)
    _names: dict[str, Any] = field(default_factory=dict)
    _printed: str | None = None

    def __post_init__(self) -> None:
        for name in CHECKOUT:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).symlink_to(ROOT / name)
        (shims := self.folder / ".venv" / "bin").mkdir(parents=True)
        (shims / "rlhi").write_text(_SHIM)
        (shims / "rlhi").chmod(0o755)
        for name in ("python", "dg"):
            (shims / name).symlink_to(Path(sys.executable).parent / name)

    def follow(self, block: Block) -> str:
        """Do what a block says; in a word, what was done.

        Raises:
            GuideError: It does not work, or prints something else.
        """
        if block.file:
            return self._write(block)
        if block.language in SHELLS:
            return self._shell(block)
        match block.language:
            case "python":
                return self._run(block)
            case "yaml":
                return self._load(block, {"extends": "laptop"} | yaml.safe_load(block.text), "fragment.yaml")
            case "text" if self._printed is not None:
                return self._compare(block)
        raise GuideError(f"{block.page}:{block.line}: a block of {block.language or 'no language'} that is neither run nor marked")

    def _write(self, block: Block) -> str:
        (path := self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
        text = block.text
        if block.language == "yaml":
            for old, new in self.instead.items():
                text = text.replace(old, new)
        path.write_text(text)
        if block.language == "python":
            compile(text, block.file, "exec")
        elif block.language == "yaml" and "extends" in (written := yaml.safe_load(text)):
            for folder in (written.get("recipes"), written.get("prompts")):
                if folder:
                    (self.folder / folder).mkdir(parents=True, exist_ok=True)
            return self._load(block, None, block.file)
        return "written"

    def _load(self, block: Block, content: Any, file: str) -> str:
        if content is not None:
            (self.folder / file).write_text(yaml.safe_dump(content))
        with self._there():
            try:
                profiles.load(str(self.folder / file))
            except ValueError as error:
                raise GuideError(f"{block.page}:{block.line}: no profile: {error}") from error
        return "loaded"

    def _run(self, block: Block) -> str:
        with self._there(), contextlib.redirect_stdout(printed := io.StringIO()):
            exec(compile(block.text, f"{block.page}:{block.line}", "exec"), self._names)
        self._printed = printed.getvalue()
        return "run"

    def _compare(self, block: Block) -> str:
        pattern = re.escape(block.text.strip()).replace("…", ".*?")
        said = (self._printed or "").replace("\u202f", " ")
        if not re.fullmatch(pattern, "\n".join(line.rstrip() for line in said.strip().splitlines()), re.DOTALL):
            raise GuideError(f"{block.page}:{block.line}: the page shows\n{block.text}\nand it prints\n{said}")
        return "compared"

    def _shell(self, block: Block) -> str:
        kept = self.folder / ".variables"
        script = f"{block.text}\nexport -p > {kept}\n"
        with Listener(("127.0.0.1", 0)) as asked, subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder, env=self.variables | {_PORT: str(asked.address[1])},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as shell:  # fmt: skip
            said: list[str] = []

            def until_it_ends() -> None:
                said.extend(shell.communicate())
                Client(asked.address).close()

            waiting = threading.Thread(target=until_it_ends)
            waiting.start()
            while _answer(asked):
                pass
            waiting.join()
        if shell.returncode:
            raise GuideError(f"{block.page}:{block.line}: it ends with {shell.returncode}\n{block.text}\n{said[0]}\n{said[1]}")
        exported = subprocess.run(["bash", "-c", f". {kept}; env -0"], env={}, capture_output=True, text=True, check=True).stdout
        self.variables = {
            name: value for name, _, value in (each.partition("=") for each in exported.split("\0")) if name not in ("", "_", _PORT)
        }
        self._printed = said[0]
        return "run"

    @contextlib.contextmanager
    def _there(self) -> Iterator[None]:
        with _placed(self.variables, str(self.folder)):
            yield


def _answer(asked: Listener) -> bool:
    """Do what one call of ``rlhi`` asks; false once the shell has ended."""
    with asked.accept() as call:
        try:
            arguments, variables, folder = call.recv()
        except EOFError:
            return False
        call.send(called(arguments, variables, folder))
        return True


def called(arguments: list[str], variables: Mapping[str, str], folder: str) -> tuple[int, str, str]:
    """What a call of ``rlhi`` in this process ends with, prints and says."""
    printed, told = io.StringIO(), io.StringIO()
    called_as = mock.patch.object(sys, "argv", ["rlhi", *arguments])
    with _placed(variables, folder), called_as, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        status = _status(main.main, told)
    return status, printed.getvalue(), told.getvalue()


def _status(command: Callable[[], None], told: io.StringIO) -> int:
    try:
        command()
    except SystemExit as left:
        if isinstance(left.code, str):
            told.write(left.code + "\n")
            return 1
        return left.code or 0
    except BaseException:
        told.write(traceback.format_exc())
        return 1
    return 0


@contextlib.contextmanager
def _placed(variables: Mapping[str, str], folder: str) -> Iterator[None]:
    """In a folder, with a shell's variables."""
    with contextlib.chdir(folder), mock.patch.dict(os.environ, variables, clear=True), mock.patch.object(sys, "path", [folder, *sys.path]):
        profiles.current.cache_clear()
        try:
            yield
        finally:
            profiles.current.cache_clear()
