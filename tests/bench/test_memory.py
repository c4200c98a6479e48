from dataclasses import replace

import pytest

from bge_export.bench.files import gather
from bge_export.bench.memory import load_fresh
from bge_export.commands import Exported
from bge_export.errors import ArtifactError
from bge_export.parity.measure.measurement import RuntimeDevice
from bge_export.runtimes import find_runtime

PLACE = RuntimeDevice(find_runtime("onnxruntime"), "cpu", requested=True)


def test_a_fresh_process_says_its_peaks_and_the_time(tiny_export: Exported) -> None:
    (file, _), _ = gather([tiny_export.folder], None)
    # As much memory as this process has by now must not show in the fresh one.
    ballast = b"x" * (400 << 20)
    facts = load_fresh(file.artifact, PLACE, 1)
    assert len(ballast)
    assert facts.before_mib is not None
    assert facts.peak_mib is not None
    assert 10 < facts.before_mib < facts.peak_mib < 350
    assert 0 < facts.load_seconds < 60


def test_what_cannot_be_loaded_is_named_with_its_reason(tiny_export: Exported) -> None:
    (file, _), _ = gather([tiny_export.folder], None)
    broken = replace(file.artifact, model="onnx/nowhere.onnx")
    with pytest.raises(
        ArtifactError, match=r"nowhere\.onnx cannot be loaded in onnxruntime:cpu.*: ONNX Runtime cannot"
    ):
        load_fresh(broken, PLACE, 1)


def test_a_killed_process_is_said_to_be(tiny_export: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr("bge_export.bench.memory.COMMAND", (sys.executable, "-c", script))
    (file, _), _ = gather([tiny_export.folder], None)
    with pytest.raises(ArtifactError, match="SIGKILL, often for want of memory"):
        load_fresh(file.artifact, PLACE, 1)
