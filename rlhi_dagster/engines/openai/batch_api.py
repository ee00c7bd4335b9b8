"""The few requests of the batch endpoint: upload, submit, ask how it stands, download; each tried again after faults of the moment."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx

from rlhi_dagster.engines.openai.client import ServerRefusedError, check_access
from rlhi_dagster.engines.openai.replies import server_error
from rlhi_dagster.engines.openai.tries import pause
from rlhi_dagster.engines.settings import OpenAISettings

_TOKEN = "rlhi_token"
"""Name under which a batch carries our word for it, by which it is found again."""
_LISTED = 100


class BatchApi:
    """One server's batch endpoint.

    All methods raise ``ServerRefusedError`` if the server refuses, or still fails after the settings' ``attempts``; a batch that was
    submitted is remembered, so nothing is lost by it.
    """

    def __init__(self, settings: OpenAISettings, model: str, http: httpx.Client) -> None:
        self.settings, self.model, self.http = settings, model, http

    def submit(self, content: bytes, token: str) -> str:
        """Upload lines and submit them as a batch; return its id. A try that failed may have been heard: then the batch is found."""
        file_id = self._json("POST", "files", data={"purpose": "batch"}, files={"file": ("batch.jsonl", content)})["id"]
        wanted = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {_TOKEN: token}}
        for tries in range(1, self.settings.attempts + 1):
            try:
                return str(self._once("POST", "batches", json=wanted).json()["id"])
            except (httpx.RequestError, ValueError, KeyError, TypeError):
                time.sleep(pause(tries, 0))
                if found := self.find(token):
                    return found
        raise self._gave_up("batches")

    def find(self, token: str) -> str | None:
        """Id of the batch that carries a token, among the latest ones."""
        for batch in self._json("GET", "batches", params={"limit": _LISTED}).get("data", []):
            if (batch.get("metadata") or {}).get(_TOKEN) == token:
                return str(batch["id"])
        return None

    def batch(self, batch_id: str) -> dict[str, Any]:
        """How a batch stands."""
        return self._json("GET", f"batches/{batch_id}")

    def results(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Lines of a batch's output and error files, by custom id."""
        found: dict[str, Any] = {}
        for file_id in (batch.get("error_file_id"), batch.get("output_file_id")):
            for line in self._tried("GET", f"files/{file_id}/content").text.split("\n") if file_id else []:
                try:
                    parsed = json.loads(line) if line.strip() else {}
                except ValueError:
                    continue  # the call counts as lost, and is asked again by the next run
                if isinstance(parsed, dict) and isinstance(parsed.get("custom_id"), str):
                    found[parsed["custom_id"]] = parsed
        return found

    def _json(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        payload = self._tried(method, path, **what).json()
        if not isinstance(payload, dict):
            raise ServerRefusedError(f"{self.settings.base_url}/{path} gave no JSON object")
        return payload

    def _tried(self, method: str, path: str, **what: Any) -> httpx.Response:
        for tries in range(1, self.settings.attempts + 1):
            try:
                return self._once(method, path, **what)
            except httpx.RequestError:
                if tries < self.settings.attempts:
                    time.sleep(pause(tries, 0))
        raise self._gave_up(path)

    def _once(self, method: str, path: str, **what: Any) -> httpx.Response:
        """One try; faults of the moment, those of HTTP among them, are ``httpx.RequestError``."""
        response = self.http.request(method, path, **what)
        if response.is_success:
            return response
        status = response.status_code
        if status in {408, 409, 425, 429} or status >= 500:
            raise httpx.ReadError(f"status {status}")
        check_access(self.settings, self.model, server_error(status, None), has_answered=True)
        raise ServerRefusedError(f"{self.settings.base_url} refuses {method} {path.split('/')[0]} of its batch endpoint (status {status})")

    def _gave_up(self, path: str) -> ServerRefusedError:
        asked = f"{self.settings.base_url}/{path.split('/')[0]}"
        return ServerRefusedError(f"{asked} failed {self.settings.attempts} times; launch again to go on with the batches under way")
