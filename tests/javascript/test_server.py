"""The loopback server: files below a token and nowhere else, and pages that answer, fail, hang or are gone."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_client import play, status

from bge_export.errors import ClientError
from bge_export.javascript.server import Loopback, PageLink


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Loopback]:
    (tmp_path / "models/onnx").mkdir(parents=True)
    (tmp_path / "models/onnx/model.onnx").write_bytes(b"weights")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "models/way-out").symlink_to(tmp_path / "secret.txt")
    loopback = Loopback({"models/model": tmp_path / "models"})
    yield loopback
    loopback.close()


def test_a_file_is_served_and_noted(server: Loopback) -> None:
    with urllib.request.urlopen(server.address + "models/model/onnx/model.onnx") as response:
        assert response.read() == b"weights"
        assert response.headers["Cache-Control"] == "no-store"
    assert server.served == ["models/model/onnx/model.onnx"]


def test_nothing_outside_is_served(server: Loopback) -> None:
    assert status(server.address + "models/model/../../secret.txt") == 404
    assert status(server.address + "models/model/way-out") == 404
    assert status(server.address.replace(server.token, "guess") + "models/model/onnx/model.onnx") == 404
    assert server.served == []


def test_answers_need_the_token_and_an_object(server: Loopback) -> None:
    assert status(server.address.replace(server.token, "guess") + "answer", b'{"id": 1}') == 404
    assert status(server.address + "answer", b"[1]") == 400
    assert status(server.address + "answer", b"{") == 400
    assert server.channel("own").answers.empty()


def test_a_page_answers(server: Loopback) -> None:
    play(server, ids=[[1]])
    assert PageLink(server).ask("tokenize", texts=["a"])["ids"] == [[1]]


def test_a_page_says_no(server: Loopback) -> None:
    play(server, error="no such op")
    with pytest.raises(ClientError, match="no such op"):
        PageLink(server).ask("dance")


def test_a_page_that_hangs_is_given_up(server: Loopback) -> None:
    with pytest.raises(ClientError, match="no answer to 'open'"):
        PageLink(server).ask("open", 0.2)


def test_a_browser_that_ended_is_noticed(server: Loopback) -> None:
    link = PageLink(server)
    link.ended = lambda: "Chromium ended by itself with status 1"
    with pytest.raises(ClientError, match="Chromium ended by itself"):
        link.ask("open", 60)
