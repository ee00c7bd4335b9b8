"""A failed step says how to go on, and tells a webhook once, which may be out of reach."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import dagster as dg
import pytest

from rlhi_dagster.graph.hooks import WEBHOOK, tell_how_to_go_on
from rlhi_dagster.graph.partitions import range_tags


@pytest.fixture
def told() -> Iterator[tuple[str, list[str]]]:
    """A server and what it was told."""
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", texts
        server.shutdown()


def failed(instance: dg.DagsterInstance) -> list[str]:
    """Messages of a run whose only step fails."""

    @dg.op
    def labels() -> None:
        raise dg.Failure("no", allow_retries=False)

    @dg.job(hooks={tell_how_to_go_on})
    def preference_data() -> None:
        labels()

    done = preference_data.execute_in_process(instance=instance, raise_on_error=False, tags=range_tags("2023-04", "2023-06"))
    assert not done.success
    return [record.user_message for record in instance.all_logs(done.run_id)]


def test_a_failed_step_says_how_to_go_on_and_tells_the_webhook(told: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, texts = told
    monkeypatch.setenv(WEBHOOK, url)
    with dg.DagsterInstance.ephemeral() as instance:
        (message,) = [each for each in failed(instance) if each.startswith("labels failed.")]
    assert message.endswith('go on with: DAGSTER_HOME="$(rlhi home)" dg launch --job preference_data --partition-range 2023-04...2023-06')
    (text,) = texts
    assert text.startswith(f"rlhi: {message} (run ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "no url"])
def test_a_webhook_out_of_reach_is_a_warning(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEBHOOK, url)
    with dg.DagsterInstance.ephemeral() as instance:
        messages = failed(instance)
    assert [each for each in messages if each.startswith(f"{WEBHOOK} could not be told")]
    assert [each for each in messages if each.startswith("labels failed.")]
