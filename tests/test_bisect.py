"""The drift finder names the layer whose weight was edited on purpose, in every format."""

import json
import shutil
from pathlib import Path

import pytest
from exporting import export_model
from safetensors.numpy import load_file, save_file

from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.cli import run
from bge_export.errors import ArtifactError
from bge_export.exporters import find_exporter
from bge_export.inspection.bisect import artifact_at, find_drift
from bge_export.inspection.states import readable_formats

TEXT = "I love cool flags!"
EDITS = {
    "embeddings": "embeddings.LayerNorm.weight",
    "layer 0": "encoder.layer.0.intermediate.dense.weight",
    "layer 1": "encoder.layer.1.attention.self.value.weight",
    "layer 2": "encoder.layer.2.output.dense.bias",
}


def edited(tiny: Path, folder: Path, tensor: str) -> Path:
    """Return a copy of the checkpoint with one tensor scaled."""
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor] = tensors[tensor] * 1.25
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("format_name", readable_formats())
@pytest.mark.parametrize(("layer", "tensor"), EDITS.items(), ids=lambda part: part.replace(" ", ""))
def test_the_edited_layer_is_named(tiny: Path, tmp_path: Path, format_name: str, layer: str, tensor: str) -> None:
    checkpoint = edited(tiny, tmp_path / "edited", tensor)
    done = export_model(find_exporter(format_name), str(checkpoint), tmp_path / "out", check=False)
    (artifact,) = read_bundle(done.folder)[1]
    drift = find_drift(artifact, open_checkpoint(tiny), TEXT, 0.999999)
    assert drift.first is not None
    assert drift.first.layer == layer
    assert [one.layer for one in drift.layers] == ["embeddings", "layer 0", "layer 1", "layer 2"]


@pytest.mark.parametrize("format_name", readable_formats())
def test_a_right_artifact_has_no_such_layer(tiny: Path, tmp_path: Path, format_name: str) -> None:
    done = export_model(
        find_exporter(format_name, {"sentence_embedding": True}), str(tiny), tmp_path / "out", check=False
    )
    (artifact,) = read_bundle(done.folder)[1]
    assert find_drift(artifact, open_checkpoint(tiny), TEXT, 0.999999).first is None


def test_the_command_reads_a_file_whose_bytes_changed(
    bundle: Path, tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnx
    from onnx import numpy_helper

    path = bundle / "onnx/model.onnx"
    model = onnx.load(path)
    (norm,) = (node for node in model.graph.node if node.name == "layer.1/feedforward_norm")
    (weight,) = (t for t in model.graph.initializer if t.name == norm.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight)[::-1].copy(), weight.name))
    path.write_bytes(model.SerializeToString())
    arguments = ["bisect", str(path), "--reference", str(tiny), "--text", TEXT]
    assert run(arguments) == 1
    assert "drifts first at layer 1" in capfd.readouterr().out
    assert run([*arguments, "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["first"] == "layer 1"
    assert run([*arguments, "--limit", "0.0001"]) == 0


def test_a_file_of_nobody_is_said(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ArtifactError, match="lies in no folder"):
        artifact_at(tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="knows no model"):
        artifact_at(bundle / "tokenizer.json")


def test_a_file_that_cannot_be_read_is_said(bundle: Path, tiny: Path) -> None:
    (bundle / "onnx/model.onnx").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="cannot be read layer by layer"):
        find_drift(artifact_at(bundle / "onnx/model.onnx"), open_checkpoint(tiny), TEXT, 0.999999)


@pytest.mark.parametrize("format_name", ["onnx", "openvino"])
def test_int8_is_refused_by_name_since_its_states_are_others(tiny: Path, tmp_path: Path, format_name: str) -> None:
    out = tmp_path / "out"
    export_model(find_exporter(format_name), str(tiny), out, precisions=["int8"], check=False)
    (artifact,) = read_bundle(out)[1]
    with pytest.raises(ArtifactError, match="channels in another order, less a constant each"):
        find_drift(artifact, open_checkpoint(str(tiny)), TEXT, 0.99)
