import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from exporting import export_model
from onnx import TensorProto, helper, numpy_helper

from bge_export.bench.files import SOME_IDS, gather
from bge_export.commands import Exported
from bge_export.errors import ArtifactError, UsageError
from bge_export.formats.onnx import read as read_onnx
from bge_export.parity.measure.measurement import RuntimeDevice
from bge_export.runtimes import find_runtime

PLACES = {name: RuntimeDevice(find_runtime(name), "cpu", requested=True) for name in ("onnxruntime", "torchscript")}


def write_model(path: Path, *kinds: tuple[int, int], inputs: tuple[str, ...] = ("input_ids",)) -> Path:
    """Write a graph with weights of (element type, number)."""
    weights = [helper.make_tensor(f"w{n}", kind, [count], [0] * count) for n, (kind, count) in enumerate(kinds)]
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in inputs]
    out = helper.make_tensor_value_info("y", TensorProto.INT64, ["b", "s"])
    nodes = [helper.make_node("Identity", [inputs[0]], ["y"])]
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends, [out], weights)), path)
    return path


def test_a_folder_gives_its_artifacts_and_the_first_in_fp32_is_the_base(tiny_export: Exported) -> None:
    files, base = gather([tiny_export.folder], None)
    assert [file.name for file in files] == ["onnx-fp32", "onnx-fp16"]
    assert base == files[0]
    model = tiny_export.folder / "onnx/model.onnx"
    assert base.size_bytes == model.stat().st_size  # not the tokenizer, which all of a folder share
    assert base.vocabulary == 880


def test_a_bare_file_needs_no_folder_and_promises_nothing(tiny_export: Exported, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_export.folder / "onnx/model_fp16.onnx", tmp_path / "downloaded.onnx"))
    (file,), base = gather([path], None)
    assert base == file
    assert (file.name, file.precision, file.artifact.target.format) == ("downloaded.onnx", "fp16", "onnx")
    assert file.artifact.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert file.artifact.outputs == ("last_hidden_state", "sentence_embedding")
    assert file.vocabulary is None
    assert SOME_IDS <= 880


def test_against_is_the_base_wherever_it_stands_and_measured_once(tiny_export: Exported) -> None:
    files, base = gather([tiny_export.folder], tiny_export.folder / "onnx/model_fp16.onnx")
    assert base.name == "onnx-fp16"
    assert sorted(file.name for file in files) == ["onnx-fp16", "onnx-fp32"]


def test_of_a_folder_as_base_only_its_fp32_is_measured(tiny_export: Exported, tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", (TensorProto.INT8, 10))
    files, base = gather([path], tiny_export.folder)
    assert [file.name for file in files] == ["onnx-fp32", "m.onnx"]
    assert base.name == "onnx-fp32"


def test_files_of_one_name_are_told_apart_by_their_folders(tiny_export: Exported, tmp_path: Path) -> None:
    paths = [write_model(tmp_path / part / "onnx/model.onnx", (TensorProto.FLOAT, 1)) for part in ("a", "b")]
    copy = Path(shutil.copytree(tiny_export.folder, tmp_path / "copy"))
    files, _ = gather([*paths, tiny_export.folder, copy], None)
    assert [file.name for file in files] == [
        "a/onnx/model.onnx", "b/onnx/model.onnx", "tiny/onnx-fp32", "tiny/onnx-fp16", "copy/onnx-fp32",
        "copy/onnx-fp16",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "precision"),
    [
        ([(TensorProto.FLOAT, 100)], "fp32"),
        ([(TensorProto.INT8, 4), (TensorProto.FLOAT, 100)], "fp32"),  # zero points alone quantize nothing
        ([(TensorProto.UINT8, 20), (TensorProto.FLOAT, 100)], "int8"),  # the layers, beside a wide embedding table
        ([(TensorProto.FLOAT16, 100), (TensorProto.FLOAT, 3)], "fp16"),
        ([(TensorProto.INT64, 100)], "unknown"),
    ],
)
def test_precision_is_what_the_narrow_weights_have(tmp_path: Path, kinds, precision: str) -> None:
    assert read_onnx(write_model(tmp_path / "m.onnx", *kinds)).precision == precision


def test_external_data_counts_and_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = onnx.load(write_model(path))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(5000, dtype=np.float32), "w"))
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    (file,), _ = gather([path], None)
    assert file.size_bytes == path.stat().st_size + 20000
    (tmp_path / "m.data").unlink()
    with pytest.raises(ArtifactError, match=r"m\.data is missing, which m\.onnx needs"):
        gather([path], None)


def test_an_openvino_file_is_read(tiny: Path, tmp_path: Path) -> None:
    from bge_export.exporters import find_exporter

    out = tmp_path / "out"
    export_model(find_exporter("openvino"), str(tiny), out, precisions=["fp16"], check=False)
    path = out / "openvino/openvino_model_fp16.xml"
    (file,), _ = gather([path], None)
    assert (file.precision, file.artifact.target.format) == ("fp16", "openvino")
    assert set(file.artifact.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert file.size_bytes == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    assert file.vocabulary == 880  # of the configuration one folder up
    path.write_text("<net>")
    with pytest.raises(ArtifactError, match="not an OpenVINO model"):
        gather([path], None)


def test_of_a_folder_only_what_the_named_runtimes_read_is_measured(tiny_export: Exported) -> None:
    files, _ = gather([tiny_export.folder], None, [PLACES["onnxruntime"]])
    assert [file.name for file in files] == ["onnx-fp32", "onnx-fp16"]
    with pytest.raises(UsageError, match="tiny holds onnx-fp32, onnx-fp16, and no runtime that was named reads that"):
        gather([tiny_export.folder], None, [PLACES["torchscript"]])


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.onnx does not exist"):
        gather([tmp_path / "nowhere.onnx"], None)
    with pytest.raises(UsageError, match=r"against\.onnx does not exist"):
        gather([write_model(tmp_path / "m.onnx")], tmp_path / "against.onnx")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"model\.pt cannot be timed by itself"):
        gather([tmp_path / "model.pt"], None)
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08 not a model")
    with pytest.raises(ArtifactError, match=r"broken\.onnx is not a valid ONNX file"):
        gather([tmp_path / "broken.onnx"], None)
    with pytest.raises(ArtifactError, match="'pixel_values'"):
        gather([write_model(tmp_path / "vision.onnx", inputs=("pixel_values",))], None)
