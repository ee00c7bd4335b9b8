"""HTTP connections to one server, as many as requests are under way.

Each is an httpx client of its own: a pool looks at all of its connections several times per request, and with 64 of them that costs more
than the request itself (docs/openai_engine.md).
"""

from __future__ import annotations

from types import TracebackType

import httpx

CONNECT_SECONDS = 10.0
_ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)


def time_limits(seconds: float) -> httpx.Timeout:
    """Those of httpx, which are by read; the limit of the whole request is set around it."""
    return httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))


class Connections:
    """Sends requests, each over a connection that is free or new; a context manager.

    Args:
        base_url: Of the server.
        headers: Of every request.
        seconds: Time limit of a read.
    """

    def __init__(self, base_url: str, headers: dict[str, str], seconds: float) -> None:
        self._base_url, self._headers, self._limits = base_url, headers | {"Content-Type": "application/json"}, time_limits(seconds)
        self._tls = httpx.create_ssl_context()
        self._free: list[httpx.AsyncClient] = []
        self._all: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> Connections:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for client in self._all:
            await client.aclose()

    async def post(self, path: str, content: bytes) -> httpx.Response:
        """Send JSON and read the whole response."""
        client = self._free.pop() if self._free else self._new()
        try:
            return await client.post(path, content=content)
        finally:
            self._free.append(client)

    def _new(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(base_url=self._base_url, headers=self._headers, limits=_ONE, timeout=self._limits, verify=self._tls)
        self._all.append(client)
        return client
