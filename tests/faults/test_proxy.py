"""Does the proxy do what it is told? Otherwise the tests behind it would prove nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults.proxy import Cut, Proxy

SHORT = 0.3


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Give a proxy before a server that says everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(line: socket.socket) -> None:
        with line, suppress(OSError):
            while data := line.recv(100):
                line.sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    running = Proxy(listener.getsockname()[1])
    yield running
    running.close()
    listener.close()


def say(proxy: Proxy, words: bytes = b"hello") -> bytes:
    """Say something and return what comes back; raises what the network does."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=SHORT) as line:
        line.sendall(words)
        return line.recv(100)


def test_it_passes_until_it_is_told_otherwise_and_again_after(proxy: Proxy) -> None:
    """A refused connection, a silent one, a broken one, one without reply; and everything is well again."""
    assert say(proxy) == b"hello"
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        say(proxy)
    proxy.accept()
    for mode in ("black_hole", "drop_reply"):
        proxy.mode = mode
        with pytest.raises(TimeoutError):
            say(proxy)
        proxy.accept()
    assert say(proxy) == b"hello"


def test_it_cuts_a_line_where_it_is_told(proxy: Proxy) -> None:
    """After so many bytes, or at the second request that holds a word, before or after it is passed on."""
    proxy.cut_after = 3
    with pytest.raises(ConnectionResetError):
        say(proxy)
    proxy.accept()
    for before in (True, False):
        proxy.cut = Cut(b"COMMIT", 2, before)
        assert say(proxy, b"COMMIT") == b"COMMIT"
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=SHORT) as line:
            line.sendall(b"COMMIT")
            with pytest.raises(ConnectionResetError):
                line.recv(100) == b"COMMIT" and line.recv(100)
    proxy.accept()
    assert say(proxy) == b"hello"


def test_it_resets_lines_that_are_open(proxy: Proxy) -> None:
    """The other side sees a reset, and a new line is taken."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=SHORT) as line:
        line.sendall(b"hello")
        assert line.recv(100) == b"hello"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            line.recv(100)
    assert say(proxy) == b"hello"
