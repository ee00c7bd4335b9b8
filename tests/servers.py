"""An HTTP server for tests that can misbehave: hang, reset, drip, cut short. In a thread, on a free port of the loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Told:
    """What to send: ``fault`` is ``hang`` (nothing, ever), ``reset``, ``drip`` (a byte now and then), ``cut`` (less than promised)."""

    status: int = 200
    payload: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: str | None = None

    def body(self) -> bytes:
        return json.dumps(self.payload).encode() if self.content is None else self.content


Handler = Callable[[Asked], Awaitable[Told]]


@contextmanager
def serving(handler: Handler) -> Iterator[str]:
    """Serve until the context ends; gives the address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(
            lambda reader, writer: _connection(handler, reader, writer), "127.0.0.1", 0, limit=2**24, backlog=512
        )

    async def stop() -> None:
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _connection(handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        try:
            while asked := await _read(reader):
                told = await handler(asked)
                if not await _send(told, writer):
                    return
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def _send(told: Told, writer: asyncio.StreamWriter) -> bool:
    """Send it; false if the connection ends with it."""
    if told.fault == "hang":
        await asyncio.sleep(3600)
    if told.fault == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    body = told.body()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **told.headers}
    lines = [f"HTTP/1.1 {told.status} .", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    if told.fault == "drip":
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()  # ends this once the other side has gone
            await asyncio.sleep(0.1)
    elif told.fault == "cut":
        writer.write(body[: len(body) // 2])
        await writer.drain()
        return False
    writer.write(body if told.fault is None else b"")
    await writer.drain()
    return True


def completion(
    *texts: str | None, prompt_tokens: int = 10, cached_tokens: int = 0, finish_reason: str = "stop", **more: Any
) -> dict[str, Any]:
    """A chat completion with one choice a text, five tokens each; ``more`` goes to each choice."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason, **more}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 5 * len(texts), "prompt_tokens_details": {"cached_tokens": cached_tokens}}
    return {"id": "chat-1", "object": "chat.completion", "choices": choices, "usage": usage}


def refused(message: str, status: int = 400, **more: Any) -> Told:
    """An error in OpenAI's shape."""
    return Told(status, {"error": {"message": message, **more}})
