import json
import re
from pathlib import Path

import onnx
import openvino
import pytest
from saturation.models import WAYS, written

from bge_export.cli import run
from bge_export.commands import Exported
from bge_export.errors import ArtifactError
from bge_export.inspection import doctor
from bge_export.inspection.folder import inspect_path


def test_doctor_names_what_is_missing_and_the_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = doctor.version

    def without_torch(name: str) -> str:
        if name == "torch":
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", without_torch)
    assert run(["doctor"]) == 0
    line = next(line for line in capfd.readouterr().out.splitlines() if "torch" in line)
    assert "missing" in line
    assert "pip install 'bge-export[export]'" in line


def test_doctor_speaks_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    devices = {(item["runtime"], item["device"]): item["unavailable"] for item in facts["devices"]}
    assert devices["onnxruntime", "cpu"] is None


def test_inspect_says_what_a_folder_is(tiny_export: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(tiny_export.folder)]) == 0
    printed = capfd.readouterr().out
    for part in ("tiny, bert", "64 dimensions, cls pooling, normalised", "ai.onnx 17, IR 8", "LayerNormalization"):
        assert part in printed


def test_inspect_speaks_json_and_reads_a_single_file(tiny_export: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(tiny_export.folder / "onnx/model_fp16.onnx"), "--json"]) == 0
    (graph,) = json.loads(capfd.readouterr().out)["graphs"]
    assert graph["opset"] == "ai.onnx 17"
    assert graph["weights"]["float16"] > graph["weights"]["int64"]


def test_inspect_reads_external_data_from_every_working_folder(
    tiny_export: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder = tmp_path / "model"
    model_folder.mkdir()
    model = onnx.load(tiny_export.folder / "onnx/model.onnx")
    onnx.save(model, model_folder / "m.onnx", save_as_external_data=True, location="m.onnx_data", size_threshold=0)

    for folder, path in (
        (tmp_path, model_folder / "m.onnx"),
        (tmp_path, Path("model/m.onnx")),
        (model_folder, Path("m.onnx")),
    ):
        monkeypatch.chdir(folder)
        assert inspect_path(path).graphs[0].external_data

    (model_folder / "m.onnx_data").unlink()
    with pytest.raises(ArtifactError, match=r"'m\.onnx_data', which is missing"):
        inspect_path(model_folder / "m.onnx")


@pytest.mark.parametrize(("fill", "said"), [(64, "none of 6 pairs"), (127, "6 of 6 pairs.*can saturate, first in w")])
def test_inspect_says_whether_int8_weights_keep_the_saturation_constraint(
    fill: int, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, WAYS["MatMul"][0], fill=fill)
    openvino.save_model(openvino.Core().read_model(path), tmp_path / "model.xml", compress_to_fp16=False)
    for file, kind in ((path, "graphs"), (tmp_path / "model.xml", "models")):
        assert run(["inspect", str(file)]) == 0
        assert re.search(said, " ".join(capfd.readouterr().out.split()))
        assert run(["inspect", str(file), "--json"]) == 0
        (found,) = json.loads(capfd.readouterr().out)[kind]
        assert found["pairs"]["saturating"] == (6 if fill == 127 else 0)


def test_inspect_says_nothing_of_pairs_where_there_are_no_int8_weights(
    tiny_export: Exported, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(tiny_export.folder)]) == 0
    assert "can saturate" not in capfd.readouterr().out


def test_inspect_refuses_what_is_damaged(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08 not a model")
    with pytest.raises(ArtifactError, match="not a valid ONNX file"):
        inspect_path(tmp_path / "broken.onnx")
    (tmp_path / "broken.xml").write_text("<net>")
    with pytest.raises(ArtifactError, match="weights cannot be read"):
        inspect_path(tmp_path / "broken.xml")
    (bundle / "onnx/model.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match="not the file that was exported"):
        inspect_path(bundle)


@pytest.mark.parametrize("name", ["model.pt", "model.bin", "model"])
def test_inspect_refuses_a_single_file_that_no_format_shows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"cannot be looked at by itself: only \.onnx or \.xml files can"):
        inspect_path(tmp_path / name)
