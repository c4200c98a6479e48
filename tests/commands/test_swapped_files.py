"""The bytes that are measured are the bytes that are digested, whoever writes into the folder meanwhile."""

import shutil
from pathlib import Path

import pytest

from bge_export.commands import check_parity
from bge_export.contracts import Artifact, Session
from bge_export.runtimes.onnxruntime import OnnxRuntime

HERE = ["onnxruntime:cpu"]


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json"])
@pytest.mark.parametrize("moment", ["before it is opened", "while it is measured"])
def test_a_file_that_is_swapped_is_refused_though_the_folder_was_whole_before(
    bundle: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    """The other file gives the same vectors, so only its bytes tell."""
    shutil.copyfile(bundle / name, tmp_path / "good")
    real = OnnxRuntime.open

    def swap() -> None:
        (bundle / name).write_bytes((tmp_path / "good").read_bytes() + (b"\x72\x00" if "onnx" in name else b"\n"))

    def opening(self: OnnxRuntime, artifact: Artifact, device: str, threads: int) -> Session:
        if moment == "before it is opened":
            swap()
        session = real(self, artifact, device, threads)
        close = session.close

        def closing() -> None:
            close()
            shutil.copyfile(tmp_path / "good", bundle / name)

        run = session.run

        def running(batch):
            if moment == "while it is measured":
                swap()
            return run(batch)

        monkeypatch.setattr(session, "close", closing, raising=False)
        monkeypatch.setattr(session, "run", running, raising=False)
        return session

    monkeypatch.setattr(OnnxRuntime, "open", opening)
    proof = check_parity(bundle, str(tiny), lanes=HERE)
    assert not proof.verdict.passed
    assert "changed while they were measured" in proof.verdict.failures[0].message
