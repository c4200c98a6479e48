"""The command through a real process, with the embedded checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import needs_client

from bge_export.bench.report import read_bench
from bge_export.commands import Exported, bench_files

QUICK = ("--seconds", 0, "--shape", "1x4", "--shape", "2x8")


def test_a_folder_is_measured_in_each_runtime(bge, tiny_export: Exported, tmp_path: Path) -> None:
    places = ("--runtime", "onnxruntime:cpu", "--runtime", "openvino:cpu")
    done = bge("bench", tiny_export.folder, *QUICK, *places, "-o", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for file in ("onnx-fp32", "onnx-fp16"):
        for place in ("onnxruntime:cpu", "openvino:cpu"):
            found = [line for line in lines if f"{file} " in line and f" {place} " in line]
            assert len(found) == 3  # size and memory once, and a time in each shape
    assert "onnx-fp32@onnxruntime:cpu in the same round" in done.stdout
    report = read_bench(tmp_path / "b.json")
    assert report.shapes == ("1x4", "2x8")
    assert len(report.lanes) == 4
    assert all(one.seconds.median > 0 for lane in report.lanes for one in lane.times)
    assert str(tmp_path) not in (tmp_path / "b.json").read_text()


def test_json_alone_is_on_standard_output(bge, tiny_export: Exported) -> None:
    file = tiny_export.folder / "onnx/model_fp16.onnx"
    done = bge("bench", file, "--against", tiny_export.folder, *QUICK, "--runtime", "onnxruntime:cpu", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["base"] == "onnx-fp32"
    assert [lane["file"] for lane in report["lanes"]] == ["onnx-fp32", "model_fp16.onnx"]
    assert isinstance(report["warnings"], list)
    assert "timing" in done.stderr


def test_a_warning_stands_in_the_table_and_on_standard_error(
    tiny_export: Exported, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from bge_export.cli import run

    report = bench_files([tiny_export.folder], lanes=["onnxruntime:cpu"], shapes=["1x4", "2x8"], seconds=0)
    slow = report.lanes[1].model_copy(update={"slower_than_fp32": ("2x8",)})
    quick = report.lanes[0].model_copy(update={"slower_than_fp32": ()})
    monkeypatch.setattr(
        "bge_export.commands.bench_files", lambda *_, **__: report.model_copy(update={"lanes": (quick, slow)})
    )
    assert run(["bench", "anything"]) == 0
    printed = capfd.readouterr()
    marked = [line for line in printed.out.splitlines() if "slower than fp32" in line]
    assert len(marked) == 1
    assert marked[0].startswith("2x8    onnx-fp16")
    assert "warning: onnx-fp16@onnxruntime:cpu, 1 thread is slower here than fp32 at 2x8" in printed.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["bench"], 2, "Missing argument"),
        (["bench", "nowhere.onnx"], 2, "nowhere.onnx does not exist"),
        (["bench", "nowhere.onnx", "--shape", "1y16"], 2, "'1y16' is not a shape"),
        (["bench", "nowhere.onnx", "--runtime", "nothing:cpu"], 2, "no 'nothing' among the runtimes"),
        (["bench", "nowhere.onnx", "--runtime", "onnxruntime"], 2, "Write it as runtime:device"),
        (["bench", "nowhere.onnx", "--threads", "0"], 2, "--threads"),
        (["bench", "nowhere.onnx", "-o", "no/such/folder.json"], 2, "the folder does not exist"),
        (["bench", "."], 3, "holds no bge_export.json"),
    ],
)
def test_what_cannot_be_measured_is_said(bge, tmp_path: Path, arguments, status: int, message: str) -> None:
    done = bge(*arguments, cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert message in " ".join(done.stderr.split())
    assert not done.stdout


def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(bge, tiny_export: Exported) -> None:
    done = bge("bench", tiny_export.folder, "--runtime", "onnxruntime:rocm", *QUICK)
    assert done.returncode == 3
    assert "MIGraphXExecutionProvider" in done.stderr
    assert "loading" not in done.stderr


@pytest.mark.parametrize("device", ["node@3", "web@2.5", "chromium@4"])
def test_a_client_is_measured_with_a_file_of_anyones_beside_the_folders(
    bge, tiny_export: Exported, tmp_path: Path, device: str
) -> None:
    needs_client(device)
    theirs = Path(shutil.copy(tiny_export.folder / "onnx/model_fp16.onnx", tmp_path / "theirs.onnx"))
    lanes = ("--runtime", f"transformersjs:{device}")
    done = bge("bench", tiny_export.folder, "--against", theirs, *lanes, *QUICK, "-o", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    report = read_bench(tmp_path / "b.json")
    readable = ["onnx-fp32"] if device == "web@2.5" else ["onnx-fp32", "onnx-fp16"]
    assert [lane.file for lane in report.lanes] == ["theirs.onnx", *readable]
    assert {lane.base for lane in report.lanes} == {f"theirs.onnx@transformersjs:{device}, 1 thread"}
    for lane in report.lanes:
        assert all(0 < one.seconds.median < 10 for one in lane.times)
        assert lane.load.before_mib is None
        assert (lane.load.peak_mib is None) == device.startswith("chromium")
        assert lane.load.peak_mib is None or 40 < lane.load.peak_mib < 1000
    assert str(tmp_path) not in (tmp_path / "b.json").read_text()


def test_a_file_that_a_client_cannot_load_by_itself_is_refused(bge, tiny_export: Exported, tmp_path: Path) -> None:
    alone = shutil.copy(tiny_export.folder / "onnx/model.onnx", tmp_path / "alone.onnx")
    done = bge("bench", alone, "--runtime", "transformersjs:node@4", *QUICK)
    assert done.returncode == 2
    assert "alone.onnx has no config.json" in " ".join(done.stderr.split())
