"""Standard streams that cannot hold a character, or that nobody reads: the exit status is still the verdict's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from exporting import export_model
from test_cli import REFUSING

from bge_export.exporters.onnx import OnnxExporter

BGE = [sys.executable, "-m", "bge_export"]


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven folder of a checkpoint whose name few encodings hold, and limits that refuse it."""
    folder = tmp_path_factory.mktemp("streams")
    shutil.copytree(tiny, folder / "модель")
    (folder / "limits.toml").write_text(REFUSING)
    export_model(OnnxExporter(), str(folder / "модель"), folder / "вектор")
    return folder


def bge(folder: Path, *arguments: str, encoding: str = "utf-8", **settings: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.run([*BGE, *arguments], cwd=folder, env=environment, timeout=300, check=False, **streams)


PASSES, REFUSES = ([], 0, "PASSED"), (["--thresholds", "limits.toml"], 1, "REFUSED")


@pytest.mark.parametrize(
    ("encoding", "limits", "status", "word"),
    [
        ("ascii", *REFUSES),
        ("cp1252", *PASSES),
        ("cp437", *REFUSES),
        ("ascii:surrogateescape", *PASSES),
        ("utf-8", *REFUSES),
    ],
)
def test_the_status_is_the_verdicts_whatever_the_stream_can_hold(
    folder: Path, encoding: str, limits: list[str], status: int, word: str
) -> None:
    done = bge(folder, "gate", "вектор/parity.json", *limits, encoding=encoding)
    printed = done.stdout.decode(encoding.partition(":")[0])
    assert (done.returncode, done.stderr) == (status, b"")
    assert word in printed
    assert ("модель" if encoding == "utf-8" else r"\u043c\u043e\u0434\u0435\u043b\u044c") in printed
    assert "difference" in printed


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_is_json_whatever_the_stream_can_hold(folder: Path, encoding: str) -> None:
    done = bge(folder, "gate", "вектор/parity.json", "--thresholds", "limits.toml", "--json", encoding=encoding)
    value = json.loads(done.stdout.decode(encoding.partition(":")[0]))
    assert done.returncode == 1
    assert value["failures"]
    assert value["checkpoint"]["source"].endswith("модель")


@pytest.mark.parametrize("encoding", ["cp437", "cp1252"])
def test_an_export_is_proven_whatever_the_stream_can_hold(folder: Path, encoding: str, tmp_path: Path) -> None:
    done = bge(folder, "onnx", "модель", "-o", str(tmp_path / "ευρετήριο"), encoding=encoding)
    assert done.returncode == 0, done.stderr
    assert b": proven." in done.stdout


@pytest.mark.parametrize("arguments", [("merge", "--help"), ("doctor",)])
def test_every_page_can_be_printed_in_ascii(folder: Path, arguments: tuple[str, ...]) -> None:
    done = bge(folder, *arguments, encoding="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()


def test_a_table_keeps_its_columns_where_only_its_marks_cannot_be_held(folder: Path) -> None:
    pages = [bge(folder, "bench", "--help", encoding=name).stdout.decode() for name in ("utf-8", "ascii")]
    ends = [[len(line.rstrip()) for line in page.splitlines()] for page in pages]
    assert ends[0] == ends[1]


def closed_pipe() -> int:
    """Return the writing end of a pipe whose reader is gone before anything is written, as `head` may be."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


OUTPUTS = [[], ["--json"]]


@pytest.mark.parametrize("options", OUTPUTS)
def test_output_that_nobody_reads_changes_no_status(folder: Path, options: list[str]) -> None:
    for limits, status, _ in (PASSES, REFUSES):
        writing = closed_pipe()
        done = bge(folder, "gate", "вектор/parity.json", *limits, *options, stdout=writing)
        os.close(writing)
        assert (done.returncode, done.stderr) == (status, b"")


def test_an_output_that_was_never_open_changes_no_status(folder: Path) -> None:
    command = ["gate", "вектор/parity.json", "--thresholds", "limits.toml"]
    done = bge(folder, *command, stdout=None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (1, b"")
    done = bge(folder, *command, stderr=None, preexec_fn=lambda: os.close(2))
    assert done.returncode == 1
    assert b"REFUSED" in done.stdout


def test_progress_that_nobody_reads_stops_no_export(folder: Path, tmp_path: Path) -> None:
    writing = closed_pipe()
    done = bge(folder, "onnx", "модель", "-o", str(tmp_path / "out"), stderr=writing)
    os.close(writing)
    assert done.returncode == 0
    assert b": proven." in done.stdout


def test_a_result_that_could_not_be_stored_is_said_and_counts_for_nothing(folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = bge(folder, "gate", "вектор/parity.json", "--json", stdout=full)
    assert done.returncode == 3
    assert b"standard output cannot be written: No space left on device" in done.stderr
    assert done.stderr.count(b"\n") == 1
