"""Exit statuses through a real process: 0 passed, 1 refused, 2 usage, 3 could not measure; and nothing left behind."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bge_export.cli import run
from bge_export.commands import Exported

REFUSING = """
require = []
["onnx-fp32"]
min_cosine = 0.999999
max_abs = 1e-12
max_norm_error = 1e-5
min_batch_cosine = 0.999999
min_token_cosine = 0.999999
min_sequence_cosine = 0.999999
"""


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Limits that nothing holds."""
    path = tmp_path_factory.mktemp("limits") / "thresholds.toml"
    path.write_text(REFUSING)
    return path


def test_export_parity_gate_and_reference_pass(bge, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bge("onnx", tiny, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "PASSED" in done.stdout
    assert f"{out}: proven." in done.stdout
    vectors = tmp_path / "reference.npz"
    assert bge("reference", tiny, "-o", vectors).returncode == 0
    done = bge("parity", out, "--reference", vectors, "--runtime", "onnxruntime", "--report", tmp_path / "p.json")
    assert done.returncode == 0, done.stderr
    assert "reference from a file" in done.stdout
    done = bge("gate", tmp_path / "p.json", "--bundle", out, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["passed"] is True


def test_a_refused_export_is_left_beside_its_place_with_its_report(
    bge, tiny: Path, tmp_path: Path, thresholds: Path
) -> None:
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--thresholds", thresholds)
    assert done.returncode == 1
    assert "max-abs" in done.stdout
    assert "would pass" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.refused"]
    report = tmp_path / "out.refused/parity.json"
    assert bge("gate", report).returncode == 0  # the package's own limits accept it
    assert bge("gate", report, "--thresholds", thresholds).returncode == 1


def test_the_default_output_is_the_models_own_name(bge, tiny: Path, tmp_path: Path) -> None:
    assert bge("onnx", tiny, "--no-check", cwd=tmp_path).returncode == 0
    assert (tmp_path / "tiny/onnx/model.onnx").is_file()
    done = bge("onnx", tiny, "--no-check", cwd=tmp_path)
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert bge("onnx", tiny, "--no-check", "--overwrite", cwd=tmp_path).returncode == 0


def test_quantize_writes_fp32_along_and_a_precision_that_is_unknown_is_wrong_use(
    bge, tiny: Path, tmp_path: Path
) -> None:
    done = bge("onnx", tiny, "-o", tmp_path / "out", "--quantize", "uint8", "--quantize", "int8-dynamic", "--no-check")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out/onnx").iterdir()}
    assert names == {"model.onnx", "model_uint8.onnx", "model_int8.onnx"}
    assert "pre-processing" not in done.stderr
    assert bge("onnx", tiny, "-o", tmp_path / "two", "--quantize", "int3", "--no-check").returncode == 2


def test_a_missing_requirement_refuses_by_name(bge, tiny_export: Exported, tmp_path: Path) -> None:
    done = bge("gate", tiny_export.folder / "parity.json", "--require", "onnxruntime:cuda")
    assert done.returncode == 1
    assert "onnxruntime:cuda" in done.stdout


def test_a_misspelt_requirement_is_wrong_use_and_no_verdict(bge, tiny_export: Exported) -> None:
    done = bge("gate", tiny_export.folder / "parity.json", "--require", "onnx-fp32@onxruntime:cpu")
    assert done.returncode == 2
    assert "no 'onxruntime' among the runtimes: onnxruntime" in done.stderr


def test_without_a_command_it_says_what_there_is(bge) -> None:
    done = bge()
    assert (done.returncode, done.stderr) == (0, "")
    assert "transformersjs" in done.stdout
    assert bge("--version").stdout.startswith("bge-export ")


def test_a_report_of_other_texts_is_refused(bge, tiny_export: Exported, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("hello\nworld\n")
    done = bge("gate", tiny_export.folder / "parity.json", "--texts", texts)
    assert done.returncode == 1
    assert "other-texts" in done.stdout


def test_own_texts_are_measured_and_judged(bge, tiny: Path, tiny_export: Exported, tmp_path: Path) -> None:
    texts, report = tmp_path / "texts.tsv", tmp_path / "own.json"
    texts.write_text("id\tsentence\n1\thello world\n2\ta second text\n")
    arguments = ["parity", tiny_export.folder, "--reference", tiny, "--texts", texts, "--column", "sentence"]
    done = bge(*arguments, "--report", report, "--json")
    assert done.returncode == 0, done.stderr
    assert bge("gate", report).returncode == 1
    assert bge("gate", report, "--texts", texts, "--column", "sentence").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["onnx", "--precision", "fp8"], 2, "fp8"),
        (["parity", "."], 2, "--reference"),
        (["onnx", "./nowhere"], 2, "no such folder"),
        (["onnx", "not//an//id"], 2, "no such folder"),
        (["onnx", "--precision", "fp8"], 2, "See: bge-export onnx --help"),
        (["gate", "missing.json"], 2, "'missing.json' does not exist"),
        (["gate", "."], 2, "holds no parity.json"),
        (["merge", "missing.json", "-o", "all.json"], 2, "'missing.json' does not exist"),
        (["inspect", "missing"], 2, "'missing' does not exist"),
        (["bench", "missing"], 2, "missing does not exist"),
        (["parity", "missing", "--reference", "x"], 2, "'missing' does not exist"),
        (["parity", ".", "--reference", "x"], 2, "holds no model file"),
        (["reference", "x", "-o", "vectors.bin"], 2, ".npz"),
        (["parity", ".", "--reference", "x", "--device", "cpu"], 2, "--runtime"),
    ],
)
def test_wrong_use_says_what_to_do(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, status, message
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == status
    printed = capfd.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_an_unforeseen_error_is_no_verdict(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("bge_export.inspection.doctor.examine_machine", broken)
    assert run(["doctor"]) == 3
    assert "surprise" in capfd.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_half_way_leaves_nothing(tiny: Path, tmp_path: Path, stop: signal.Signals) -> None:
    command = [sys.executable, "-m", "bge_export", "onnx", str(tiny), "-o", str(tmp_path / "out")]
    # A suite that a shell runs in the background ignores SIGINT, and so would the export.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(stop, signal.SIG_DFL)
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(tmp_path.glob(".out.*.partial")), "the export never started"
    process.send_signal(stop)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "interrupted" in err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_and_says_so(tiny: Path, tmp_path: Path) -> None:
    def at_most_300_kb() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    command = [sys.executable, "-m", "bge_export", "onnx", str(tiny), "-o", str(tmp_path / "out"), "--no-check"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=at_most_300_kb, check=False)
    assert done.returncode == 3, done.stderr
    assert "space" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "safetensors"),
        (lambda f: cut(f / "model.safetensors"), "model.safetensors"),
        (lambda f: edit(f, hidden_size=32), "64"),
        (lambda f: edit(f, intermediate_size=96), "wrong shape"),
        (lambda f: edit(f, num_hidden_layers=7), "lack"),
        (lambda f: edit(f, model_type="martian"), "martian"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json"),
        (lambda f: shutil.rmtree(f / "1_Pooling"), "1_Pooling"),
    ],
)
def test_a_bad_checkpoint_is_refused_and_nothing_is_written(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], damage, message
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny, folder)
    damage(folder)
    assert run(["onnx", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert message in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_no_declared_pooling_needs_the_option(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny, folder)
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    out = str(tmp_path / "out")
    assert run(["onnx", str(folder), "-o", out]) == 2
    assert "--pooling" in capfd.readouterr().err
    assert run(["onnx", str(folder), "-o", out, "--pooling", "mean"]) == 0
    assert '"pooling": "mean"' in (tmp_path / "out/bge_export.json").read_text("utf-8")


def test_nothing_is_read_from_the_environment_but_what_is_documented(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bge_export", "doctor"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "BGE_EXPORT_DEBUG": "1"}, check=False)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_tensorrt_is_kept_from_tf32_by_the_only_switch_it_has() -> None:
    code = (
        "import os, sys\nfrom bge_export.cli import main\nsys.argv = ['bge-export', '--help']\n"
        "try:\n    main()\nfinally:\n    print('switch', os.environ['NVIDIA_TF32_OVERRIDE'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "switch 0"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
