"""Files that a command is told to write never replace what bge-export did not write."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import report_of

from bge_export.cli import run
from bge_export.commands import Exported, check_parity, judge_report, merge_reports, write_reference
from bge_export.errors import ArtifactError, OutputError
from bge_export.files.single import refuse_path, written_whole
from bge_export.parity.report import read_report, write_report
from bge_export.parity.show.html import refuse_page

OTHERS = {
    "notes.txt": b"mine",
    "empty.json": b"",
    "data.json": b'{"schema": "of another tool"}',
    "index.html": b"<html>",
}


def forbidden(*_arguments: object, **_named: object) -> None:
    raise AssertionError("work was begun before the path was checked")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    (tmp_path / "reports").mkdir()
    write_report(report_of(), tmp_path / "reports/parity.json")
    return tmp_path / "reports/parity.json"


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_others_is_replaced_by_no_command(
    report: Path, tiny_export: Exported, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / name
    mine.write_bytes(OTHERS[name])
    for arguments in (
        ["merge", report, report, "-o", mine],
        ["merge", report, report, "-o", tmp_path / "new.json", "--html", mine],
        ["gate", report, "--html", mine],
        ["parity", tiny_export.folder, "--reference", "x", "--report", mine],
        ["parity", tiny_export.folder, "--reference", "x", "--html", mine],
    ):
        assert run([str(argument) for argument in arguments]) == 2
        assert f"{mine} exists and is not a " in capfd.readouterr().err
    assert mine.read_bytes() == OTHERS[name]
    assert not (tmp_path / "new.json").exists()


def test_our_own_reports_and_pages_are_replaced_but_never_by_the_other(report: Path, tmp_path: Path) -> None:
    merged, page = tmp_path / "merged.json", tmp_path / "page.html"
    for _ in range(2):
        run(["merge", str(report), "-o", str(merged), "--html", str(page)])
        assert b"<!doctype html>" in page.read_bytes()
        page.write_bytes(page.read_bytes()[:3000])  # a damaged one is still ours
    assert run(["merge", str(report), "-o", str(page)]) == 2
    assert run(["gate", str(report), "--html", str(merged)]) == 2
    both = tmp_path / "both"
    assert run(["merge", str(report), "-o", str(both), "--html", str(both)]) == 2
    assert read_report(both) == read_report(merged)


@pytest.mark.parametrize("name", ["bge_export.json", "tokenizer.json", "onnx/model.onnx", "config.json"])
def test_the_files_of_an_export_are_no_place_for_a_report(bundle: Path, report: Path, name: str) -> None:
    before = (bundle / name).read_bytes()
    with pytest.raises(OutputError, match="exists and is not a report"):
        merge_reports([report], bundle / name)
    with pytest.raises(OutputError, match="exists and is not a page"):
        refuse_page(bundle / name)
    assert (bundle / name).read_bytes() == before


def test_links_devices_and_folders_are_not_replaced(report: Path, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to(report)
    os.mkfifo(tmp_path / "pipe")
    for name in ("dangling", "link", "pipe", "/dev/null"):
        with pytest.raises(OutputError, match="exists and is not a report"):
            merge_reports([report], tmp_path / name)
    with pytest.raises(OutputError, match="is a folder"):
        merge_reports([report], tmp_path)


def test_a_place_that_cannot_be_is_said_before_the_work(tiny: Path, tiny_export: Exported, report: Path) -> None:
    with pytest.raises(OutputError, match="no does not exist"):
        check_parity(tiny_export.folder, str(tiny), report_path=report.parent / "no/parity.json")
    with pytest.raises(OutputError, match=r"parity\.json is not a folder"):
        merge_reports([report], report / "merged.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [("there.npz", "exists already"), ("no/new.npz", "no does not exist"), ("there.npz/new.npz", "is not a folder")],
)
def test_reference_vectors_are_written_to_a_new_file_only_and_that_is_said_before_the_oracle_runs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "there.npz").write_bytes(b"of a day's work")
    monkeypatch.setattr("bge_export.commands.reference.open_checkpoint", forbidden)
    monkeypatch.setattr("bge_export.commands.reference.run_oracle", forbidden)
    with pytest.raises(OutputError, match=message):
        write_reference(str(tiny), tmp_path / name)
    assert (tmp_path / "there.npz").read_bytes() == b"of a day's work"


@pytest.mark.parametrize("when", ["while it is written", "before it is moved"])
def test_a_file_that_could_not_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    def write(path: Path) -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            if when == "while it is written":
                stop()

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED_WHILE_WRITING = """
import os, sys
from pathlib import Path
from bge_export.files.single import written_whole
with written_whole(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_left_is_named_by_the_gate_and_removed_by_a_later_write(bundle: Path) -> None:
    path = bundle / "parity.json"
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
    (left,) = bundle.glob(".parity.json.*.tmp")
    with pytest.raises(ArtifactError, match=f"{left.name} is the unfinished part of a file, left by a process that"):
        judge_report(path)

    running = left.with_name(f".parity.json.{os.getppid()}.tmp")
    others = left.with_name(left.name.replace("parity", "other"))
    young = left.with_name(".parity.json.999999999.tmp")
    for one in (running, others, left, young):
        one.touch()
        os.utime(one, None if one is young else (0, 0))
    with written_whole(path) as temporary:
        temporary.write_text("new")
    assert sorted(bundle.glob(".*.tmp")) == sorted([running, others, young])


def test_nothing_there_is_a_place(tmp_path: Path) -> None:
    refuse_path(tmp_path / "new", "report")
