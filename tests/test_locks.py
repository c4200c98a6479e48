"""Two exports into one folder: the second is refused, and no lock lies beside the output."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bge_export.bundle.staging import refused_folder, staged
from bge_export.errors import OutputError

HOLDING = """
import sys
from pathlib import Path
from bge_export.bundle.staging import staged

with staged(Path(sys.argv[1]), source=Path(sys.argv[2])):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home folder, which lies apart from what is exported."""
    folder = tmp_path.parent / f"{tmp_path.name}-home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@contextmanager
def held(out: Path, source: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run an export in another process until the block ends."""
    command = [sys.executable, "-c", HOLDING, str(out), str(source)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.communicate("\n")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refuse(out: Path, source: Path) -> None:
    with pytest.raises(OutputError, match="Another export writes"), staged(out, source=source):
        raise AssertionError


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_export_that_runs_has_its_partial_folder_alone_beside_its_output(
    tmp_path: Path, source: Path, home: Path
) -> None:
    with staged(tmp_path / "out", source=source):
        assert names(tmp_path) == [".out.bge-export.partial", "source"]
        assert len(files_below(home / ".cache/bge_export/locks")) == 2
    assert names(tmp_path) == ["source"]
    assert files_below(home) == []


def test_another_process_is_refused_by_whatever_path_it_comes(tmp_path: Path, source: Path, home: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with held(tmp_path / "real/out", source):
        for out in (tmp_path / "real/out", tmp_path / "link/out", tmp_path / "real/../link/out"):
            refuse(out, source)
            refuse(refused_folder(out), source)
        with staged(tmp_path / "out", source=source):
            assert names(tmp_path / "real") == [".out.bge-export.partial"]


def test_a_killed_export_leaves_its_folder_but_no_lock(tmp_path: Path, source: Path, home: Path) -> None:
    with held(tmp_path / "out", source) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert names(tmp_path) == [".out.bge-export.partial", "source"]
    with staged(tmp_path / "out", source=source):
        pass
    assert names(tmp_path) == ["source"]
    assert files_below(home) == []


def no_folder(home: Path) -> None:
    (home / ".cache").write_text("a file")


def no_place(home: Path) -> None:
    home.rmdir()
    home.symlink_to("/proc/none")  # not even root writes there


@pytest.mark.parametrize("spoil", [no_folder, no_place])
def test_where_the_cache_cannot_be_written_locks_are_temporary_files(
    tmp_path: Path, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch, spoil
) -> None:
    spoil(home)
    temporary = tmp_path.parent / f"{tmp_path.name}-tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)

    with held(tmp_path / "out", source):
        refuse(tmp_path / "out", source)
        assert len(files_below(temporary)) == 2
    with staged(tmp_path / "out", source=source):
        assert names(tmp_path) == [".out.bge-export.partial", "source"]
    assert files_below(temporary) == []


def test_a_user_without_a_home_exports_all_the_same(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    with staged(tmp_path / "out", source=source):
        refuse(tmp_path / "out", source)


def test_where_no_lock_can_be_made_it_is_said_and_nothing_is_written(
    tmp_path: Path, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_folder(home)
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(home / ".cache"))
    with (
        pytest.raises(OutputError, match="cannot be written: Not a directory"),
        staged(tmp_path / "out", source=source),
    ):
        raise AssertionError
    assert names(tmp_path) == ["source"]
