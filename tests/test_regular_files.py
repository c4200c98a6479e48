"""Pipes, devices and files of any size in place of files: every reader ends, with an error that says what is there."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fuzz.readers import READERS

from bge_export.errors import BgeExportError
from bge_export.files.digest import file_sha256
from bge_export.files.regular import open_regular, read_regular

CASES = [(reader, file) for reader, one in READERS.items() if reader != "model" for file in sorted(one.files)]
STREAMED = (".safetensors", ".bin", ".npz", ".onnx", ".xml")
SMALL_FILES = [case for case in CASES if not case[1].endswith(STREAMED) and case != ("manifest", "modules.json")]
"""What is read whole; files that a manifest lists are hashed first, piece by piece."""


@contextmanager
def deadline() -> Iterator[None]:
    """End what hangs."""

    def end(*_: object) -> None:
        raise AssertionError("no end within 5 seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ends(reader: str, root: Path) -> None:
    """Read a folder: in time, and with a project error or none, where a file that may be missing was passed over."""
    with deadline(), suppress(BgeExportError):
        READERS[reader].read(root)


@pytest.mark.parametrize(("reader", "file"), CASES)
def test_a_pipe_in_place_of_a_file_ends_every_reader(reader: str, file: str, tmp_path: Path) -> None:
    READERS[reader].write(tmp_path)
    READERS[reader].read(tmp_path)  # libraries take longer to import than the deadline
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    ends(reader, tmp_path)


@pytest.mark.parametrize(("reader", "file"), SMALL_FILES)
def test_a_file_larger_than_its_kind_is_not_read(reader: str, file: str, tmp_path: Path) -> None:
    READERS[reader].write(tmp_path)
    READERS[reader].read(tmp_path)
    os.truncate(tmp_path / file, 3 << 30)
    ends(reader, tmp_path)


def test_a_device_is_not_read() -> None:
    for read in (lambda path: read_regular(path, 10), file_sha256, open_regular):
        with pytest.raises(OSError, match="device"):
            read(Path("/dev/zero"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path / "pipe", 10)
    assert time.monotonic() - start < 1


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, more than the 4"):
        read_regular(path, 4)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 5) == b"1"
