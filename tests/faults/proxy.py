"""What does a bad network do? A TCP proxy on loopback that passes, refuses, swallows, resets, delays and cuts.

It stands before a TCP port or a Unix socket, and can be told at any time to behave otherwise.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
CHUNK = 65536
WAIT = 0.02


@dataclass
class Cut:
    """Breaks the line at the ``number``-th request that holds ``word``: before it is passed on, or before its reply."""

    word: bytes
    number: int
    before: bool
    seen: int = 0


@dataclass
class Proxy:
    """Stands between a client and ``target``: a port of this machine, or the path of a socket.

    ``mode`` is ``pass``, ``black_hole`` (nothing arrives, nobody is told) or ``drop_reply``; ``delay`` is in seconds.
    ``cut_after`` breaks a line after so many bytes of replies; ``cut`` at a certain request.
    """

    target: int | str
    mode: str = "pass"
    delay: float = 0.0
    cut_after: int | None = None
    cut: Cut | None = None
    port: int = 0
    _lines: set[asyncio.StreamWriter] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None

    def __post_init__(self) -> None:
        """Listen, on a free port."""
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self._listen())

    def refuse(self) -> None:
        """Close the port and every line: who comes now is refused."""
        self._do(self._close())

    def accept(self) -> None:
        """Open the port again, the same one, and pass everything."""
        self.mode, self.delay, self.cut_after, self.cut = "pass", 0.0, None, None
        if self._server is None:
            self._do(self._listen())

    def reset(self) -> None:
        """Break every line the hard way; new ones are taken."""
        self._do(self._reset())

    def close(self) -> None:
        """End."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, act: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(act, self._loop)
        return done.result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _reset(self) -> None:
        for line in list(self._lines):
            _break(line)

    async def _take(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        lines = [back]
        self._lines.add(back)
        with suppress(OSError, asyncio.CancelledError):
            server, out = await self._connect()
            lines.append(out)
            self._lines.add(out)
            ways = [self._pump(client, out, lines, reply=False), self._pump(server, back, lines, reply=True)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        for line in lines:
            self._lines.discard(line)
            line.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        lines: list[asyncio.StreamWriter],
        *,
        reply: bool,
    ) -> None:
        passed = 0
        while data := await source.read(CHUNK):
            await self._hold()
            passed += len(data)
            late = self._is_cut(data) if not reply else self.cut_after is not None and passed > self.cut_after
            if late and (reply or (self.cut and self.cut.before)):
                break
            if not (reply and self.mode == "drop_reply"):
                sink.write(data)
                await sink.drain()
            if late:  # the request has arrived, and its reply never will
                await asyncio.sleep(5 * WAIT)
                break
        else:
            return
        for line in lines:
            _break(line)

    async def _hold(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        while self.mode == "black_hole":  # noqa: ASYNC110 - told from other threads
            await asyncio.sleep(WAIT)

    def _is_cut(self, data: bytes) -> bool:
        if self.cut is None or self.cut.word not in data:
            return False
        self.cut.seen += 1
        return self.cut.seen == self.cut.number


def _break(line: asyncio.StreamWriter) -> None:
    """Drop a connection so that the other side sees a reset, not an end."""
    with suppress(OSError):
        found = line.get_extra_info("socket")
        if found.family != socket.AF_UNIX:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.transport.abort()
