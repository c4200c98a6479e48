"""What a newcomer meets: hints for calls that people get wrong, help by purpose, narrow terminals, next steps."""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from exporting import export_model
from rich.cells import cell_len

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.cli import COMMANDS, app, run
from bge_export.cli.loading import loading_lines
from bge_export.cli.summary import next_steps
from bge_export.commands import Exported
from bge_export.contracts import Exporter
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.openvino import OpenVinoExporter
from bge_export.exporters.torchscript import TorchScriptExporter
from bge_export.oracle.eager import embed_texts
from bge_export.texts.corpus import Corpus, Text

STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["onnx", "x", "--precision", "int8"], "asked for with --quantize int8."),
        (["onnx", "x", "--precision", "q8"], "asked for with --quantize int8."),
        (["onnx", "x", "--quantize", "fp16"], "asked for with --precision fp16."),
        (["openvino", "x", "--quantize", "q4"], "This format has no q4."),
        (["transformersjs", "x", "--dtypes", "q8"], "'q8' is what clients call int8"),
        (["onnx", "x", "--precision", "float"], "is not one of 'fp32', 'fp16'. See: bge-export onnx --help"),
        (["check", "."], "supabase-edge"),
        (["gate", "."], "bge-export parity . --reference MODEL"),
    ],
)
def test_a_call_that_people_get_wrong_is_answered_with_what_they_meant(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert said in capfd.readouterr().err


def test_gate_takes_the_folder_in_place_of_its_report(tiny_export: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["gate", str(tiny_export.folder)]) == 0
    folder = capfd.readouterr().out
    assert run(["gate", str(tiny_export.folder / "parity.json")]) == 0
    assert capfd.readouterr().out == folder


def test_help_names_every_command_once_under_what_people_want(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capfd.readouterr().out
    assert [shown.index(panel) for panel in COMMANDS] == sorted(shown.index(panel) for panel in COMMANDS)
    assert sum(map(len, COMMANDS.values())) == len(app.registered_commands)
    for command in app.registered_commands:
        assert re.search(rf"^│ {command.name} ", shown, re.MULTILINE), command.name


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:FutureWarning")
@pytest.mark.parametrize(
    "exporter", [OnnxExporter(), OpenVinoExporter(), TorchScriptExporter()], ids=lambda one: str(one.format)
)
def test_the_lines_at_the_end_of_an_export_give_the_checkpoints_vector(
    exporter: Exporter, tiny: Path, tmp_path: Path
) -> None:
    done = export_model(exporter, str(tiny), tmp_path / "out", check=False)
    lines = list(loading_lines(done.folder))
    assert any("Represent this sentence" in line for line in lines)

    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    corpus = Corpus("one.txt", (Text("one", "That is a happy person", ""),))
    np.testing.assert_allclose(
        np.asarray(names["embedding"]), embed_texts(open_checkpoint(tiny), corpus, threads=1).truth[0], atol=1e-5
    )


@pytest.mark.parametrize(
    "exporter", [TorchScriptExporter(layout="eland"), OpenVinoExporter(static_shape=(1, 512))], ids=["eland", "static"]
)
def test_a_model_that_takes_no_single_text_has_no_such_lines(exporter: Exporter, tiny: Path, tmp_path: Path) -> None:
    done = export_model(exporter, str(tiny), tmp_path / "out", check=False)
    assert list(loading_lines(done.folder)) == []


def test_a_proven_export_ends_with_the_next_commands_and_an_unchecked_one_does_not(
    tiny_export: Exported, tiny: Path, tmp_path: Path
) -> None:
    steps = "\n".join(next_steps(tiny_export))
    assert f"bge-export gate {tiny_export.folder}" in steps
    assert "onnxruntime.InferenceSession" in steps
    assert list(next_steps(export_model(OnnxExporter(), str(tiny), tmp_path / "out", check=False))) == []


def on_a_terminal(columns: int, *arguments: object) -> list[str]:
    """Return what the command line shows on a terminal of that width, without styles, line by line."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bge_export", *map(str, arguments)],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**environment, "TERM": "xterm"},
    )
    os.close(theirs)

    shown = b""
    while True:
        try:
            part = os.read(mine, 65536)
        except OSError:  # Linux says so at the end
            break
        if not part:
            break
        shown += part

    os.close(mine)
    process.wait()
    return [STYLE.sub("", line) for line in shown.decode("utf-8").splitlines()]


@pytest.mark.parametrize("command", ["inspect", "gate", "check"])
def test_tables_fit_a_terminal_of_80_columns_and_no_line_is_followed_by_an_empty_one(
    tiny_export: Exported, tmp_path: Path, command: str
) -> None:
    folder = shutil.copytree(tiny_export.folder, tmp_path / "out")
    more = ["--target", "transformers.js@4"] if command == "check" else []
    lines = on_a_terminal(80, command, folder, *more)

    assert len(lines) > 4
    assert max(cell_len(line.rstrip()) for line in lines) <= 80
    assert not any(cell_len(line) > 80 for line in lines)
    empty = sum(not line.strip() for line in lines)
    assert empty < len(lines) / 3


@pytest.mark.parametrize("command", ["", *sorted(str(one.name) for one in app.registered_commands)])
def test_help_fits_a_terminal_of_80_columns(command: str, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*filter(None, [command]), "--help"]) == 0
    assert max(cell_len(line) for line in capfd.readouterr().out.splitlines()) <= 80
