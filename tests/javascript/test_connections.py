"""Whoever connects to the loopback server: malformed, without the token, stalled, too many, or too much at once."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from loopback_client import play, status

from bge_export.javascript import connections
from bge_export.javascript.handler import ANSWER_BYTES, GREETING_BYTES
from bge_export.javascript.server import Loopback, PageLink


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Loopback]:
    (tmp_path / "models/onnx").mkdir(parents=True)
    (tmp_path / "models/onnx/model.onnx").write_bytes(b"weights")
    loopback = Loopback({"models/model": tmp_path / "models"})
    yield loopback
    loopback.close()


MALFORMED = [
    b"POST /{token}/answer HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    b"POST /{token}/answer HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /{token}/answer HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"POST /{token}/answer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    b"POST /{token}/answer HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200000,
    b"POST /{token}/hello HTTP/1.1\r\nContent-Length: 9\r\n\r\n\xff\xfe\x00{}[]{}",
    b"POST /{token}/answer?page=http://[ HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
    b"GET //[/{token}/js HTTP/1.1\r\n\r\n",
    b"GET /{token}/models/model/\x00 HTTP/1.1\r\n\r\n",
    b"GET /{token}/models/model/" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n",
    b"GET /{token}/models/model/" + b"../" * 2000 + b" HTTP/1.1\r\n\r\n",
    b"GET /{token}/next HTTP/9.9\r\n\r\n",
    b"GET /{token}/next HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    b"GET /{token}/next HTTP/1.1\r\n" + b"a" * 70000 + b"\r\n\r\n",
    b"DANCE /{token}/next HTTP/1.1\r\n\r\n",
    b"GET /" + b"x" * 70000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a browser that wants TLS\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"",
]


def connect(server: Loopback) -> socket.socket:
    parts = urlsplit(server.address)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def answered(connection: socket.socket) -> bytes:
    """Return what comes until the server ends the connection; a reset ends it too."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return received


def test_a_malformed_request_is_refused_without_a_word_and_the_next_one_is_served(
    server: Loopback, capfd: pytest.CaptureFixture[str]
) -> None:
    for request in MALFORMED:
        with connect(server) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(request.replace(b"{token}", server.token.encode()))
            connection.shutdown(socket.SHUT_WR)
            first = answered(connection).partition(b"\r\n")[0]
            assert not first.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3")), (request[:80], first)
    assert server.channel("own").answers.empty()
    assert status(server.address + "models/model/onnx/model.onnx") == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("head", ["Content-Length: 1000", "Content-Length: 1000\r\nExpect: 100-continue", "X: y"])
def test_without_the_token_nothing_more_is_read(server: Loopback, head: str) -> None:
    with connect(server) as connection:
        connection.sendall(f"POST /guess/answer HTTP/1.1\r\n{head}\r\n".encode())  # neither head nor body ends
        assert answered(connection).startswith(b"HTTP/1.1 404 ")


def test_a_body_is_asked_for_only_behind_the_token(server: Loopback) -> None:
    with connect(server) as connection:
        connection.sendall(
            f"POST /{server.token}/hello HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")


def threads_of(server: Loopback) -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def ends(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    last = time.monotonic() + seconds
    while not condition() and time.monotonic() < last:
        time.sleep(0.02)
    return condition()


STALLED = {
    "nothing": b"",
    "half a line": b"GET /{token}",
    "half a head": b"GET /{token}/next HTTP/1.1\r\nHost: x\r\n",
    "half a body": b'POST /{token}/answer HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"id": 1',
    "between requests": b"GET /{token}/models/model/onnx/model.onnx HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("kind", STALLED)
@pytest.mark.parametrize("dripping", [False, True])
def test_a_stalled_connection_ends(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, kind: str, dripping: bool
) -> None:
    for limit in ("TOKEN_SECONDS", "REQUEST_SECONDS"):
        monkeypatch.setattr(connections, limit, 0.4)
    before = threads_of(server)
    with connect(server) as connection:
        connection.sendall(STALLED[kind].replace(b"{token}", server.token.encode()))

        def ended() -> bool:
            if dripping and kind != "between requests":  # a byte now and then is no progress
                with contextlib.suppress(OSError):
                    connection.sendall(b"a")
                time.sleep(0.1)
            return threads_of(server) == before

        assert ends(lambda: threads_of(server) > before) or kind == "nothing"
        assert ends(ended)
    assert server.channel("own").answers.empty()


def test_a_reader_that_takes_nothing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.4)
    (tmp_path / "large").write_bytes(bytes(64 << 20))
    server = Loopback({"files": tmp_path})
    try:
        before = threads_of(server)
        with connect(server) as connection:
            connection.sendall(f"GET /{server.token}/files/large HTTP/1.1\r\n\r\n".encode())
            assert ends(lambda: threads_of(server) > before)
            assert ends(lambda: threads_of(server) == before)
    finally:
        server.close()


def test_strangers_give_way_and_no_more_connections_are_held_than_are_needed(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 8)
    before = threads_of(server)
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(connect(server)) for _ in range(40)]
        assert status(server.address + "models/model/onnx/model.onnx") == 200
        assert ends(lambda: threads_of(server) - before <= 8)
        assert answered(strangers[0]) == b""


def test_pages_that_answer_unasked_fill_no_memory(server: Loopback) -> None:
    codes = [status(server.address + "answer", b'{"id": 99}') for _ in range(40)]
    assert codes[0] == 204
    assert codes[-1] == 503
    play(server, ids=[[1]])
    assert PageLink(server).ask("tokenize", texts=["a"])["ids"] == [[1]]


@pytest.mark.parametrize(("name", "size"), [("answer", ANSWER_BYTES), ("hello", GREETING_BYTES)])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: Loopback, name: str, size: int) -> None:
    with connect(server) as connection:
        connection.sendall(f"POST /{server.token}/{name} HTTP/1.1\r\nContent-Length: {size + 1}\r\n\r\n".encode())
        assert answered(connection).startswith(b"HTTP/1.1 413 ")
