"""Where a command's time goes."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from bge_export.cli import run
from bge_export.progress.timings import lines_of, timed, timings


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
    with timings() as whole:
        with timed("large"):
            len(np.ones(2**26, dtype=np.uint8))
        with timed("small"):
            pass

    large, small = whole.parts["large"].peak_bytes, whole.parts["small"].peak_bytes
    assert large is not None
    assert small is not None
    assert large - small > 2**25
    assert whole.peak_bytes == large


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
