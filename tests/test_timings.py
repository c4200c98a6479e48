"""Where a command's time goes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bge_export.cli import run
from bge_export.progress.timings import lines_of, timed, timings

LARGE_THEN_SMALL = """
from bge_export.progress.timings import timed, timings
with timings() as whole:
    with timed("large"):
        len(bytearray(b"1") * 2**26)
    with timed("small"):
        pass
print(whole.peak_bytes, whole.parts["large"].peak_bytes, whole.parts["small"].peak_bytes)
"""
"""In a process of its own: one that ran other tests may hold free memory, which a large array then takes."""


def test_parts_of_one_name_are_added_up_and_parts_in_parts_are_below_them() -> None:
    with timings() as whole:
        for _ in range(2):
            with timed("outer"), timed("inner"):
                time.sleep(0.02)
        with timed("other"):
            pass

    outer = whole.parts["outer"]
    assert whole.seconds >= outer.seconds >= outer.parts["inner"].seconds >= 0.04
    assert [line.split()[0] for line in lines_of(whole)] == ["part", "all", "outer", "inner", "other"]


def test_the_peak_of_a_part_is_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE_THEN_SMALL], capture_output=True, text=True, check=True)
    whole, large, small = map(int, done.stdout.split())
    assert large - small > 2**25
    assert whole == large


def test_nothing_is_measured_unasked() -> None:
    with timed("outer"):
        pass
    with timings() as whole:
        pass
    assert whole.parts == {}


def test_a_command_says_where_its_time_went(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--timings", "onnx", str(tiny), "-o", str(tmp_path / "out"), "--json"]) == 0
    printed = capfd.readouterr()
    parts = json.loads(printed.out)["timings"]
    assert parts["measuring"]["parts"]["onnx-fp32 in onnxruntime:cpu"]["parts"]["texts"]["seconds"] > 0
    assert any(line.split()[0] == "measuring" for line in printed.err.splitlines() if line.strip())
