"""A Hub to publish to, and the command that publishes there, in this process: only the addresses are another's."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_repository import TOKEN, WritableHub, serve_writable
from huggingface_hub import constants

from bge_export.cli import run


@dataclass
class Done:
    """What a command gave: its exit status, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def hub() -> Iterator[WritableHub]:
    with serve_writable(WritableHub()) as running:
        yield running


@pytest.fixture
def command(
    hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run bge-export as a user whose Hub is on the loopback interface; no token may be in what it prints."""
    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    files = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)

    def command(*arguments: object) -> Done:
        capsys.readouterr()
        status = run([str(one) for one in arguments])
        printed = capsys.readouterr()
        assert TOKEN not in printed.out + printed.err
        return Done(status, printed.out, printed.err)

    return command
