from pathlib import Path

import numpy as np
import openvino
import pytest
from architectures import build
from exporting import export_model

from bge_export.bundle.manifest import read_bundle
from bge_export.cli import run
from bge_export.exporters.openvino import OpenVinoExporter


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        *[("bert", "last"), ("bert", "mean"), ("roberta", "mean"), ("xlm-roberta", "cls"), ("distilbert", "cls")],
        *[("mpnet", "cls"), ("mpnet", "mean"), ("mpnet", "last")],
    ],
)
def test_every_architecture_is_proven_in_both_precisions(kind: str, pooling: str, tmp_path: Path) -> None:
    checkpoint = build(kind, tmp_path / kind, pooling)
    exporter = OpenVinoExporter(sentence_embedding=True)
    done = export_model(exporter, str(checkpoint), tmp_path / "out", precisions=["fp32", "fp16"])
    assert done.proof is not None
    assert [bad.message for bad in done.proof.verdict.failures] == []
    assert len(done.proof.report.lanes) == 4


def test_files_names_types_and_shapes_are_what_consumers_expect(tiny: Path, tmp_path: Path) -> None:
    exporter = OpenVinoExporter(sentence_embedding=True)
    out = export_model(exporter, str(tiny), tmp_path / "out", precisions=["fp32", "fp16"], check=False).folder
    names = sorted(path.relative_to(out).as_posix() for path in out.rglob("openvino_model*"))
    parts = ("openvino/openvino_model_fp16", "openvino_model")
    assert names == [f"{part}.{suffix}" for part in parts for suffix in ("bin", "xml")]
    model = openvino.Core().read_model(out / "openvino_model.xml")
    assert [next(iter(port.get_names())) for port in model.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {port.get_element_type().get_type_name() for port in model.inputs} == {"i64"}
    assert all(dim.is_dynamic for port in model.inputs for dim in port.get_partial_shape())
    assert ["last_hidden_state" in model.outputs[0].get_names(), "sentence_embedding" in model.outputs[1].get_names()]
    half, full = ((out / name).stat().st_size for name in ("openvino/openvino_model_fp16.bin", "openvino_model.bin"))
    assert half < 0.52 * full


def test_two_exports_give_the_same_bytes_and_name_no_machine(tiny: Path, tmp_path: Path) -> None:
    folders = [
        export_model(OpenVinoExporter(), str(tiny), tmp_path / name, precisions=["fp32", "fp16"], check=False).folder
        for name in ("a", "b")
    ]
    for name in sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file()):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    text = (folders[0] / "openvino_model.xml").read_text("utf-8")
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text


def mpnet_buckets(path: Path) -> np.ndarray:
    """Return MPNet's bucket of every distance, [512, 512]: the graph's one cast of a float to an integer."""
    core = openvino.Core()
    model = core.read_model(path)
    (cast,) = (
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Convert"
        and node.get_input_element_type(0).is_real()
        and node.get_output_element_type(0).is_integral()
    )
    cast.output(0).get_tensor().set_names({"buckets"})
    model.add_outputs([cast.output(0)])
    request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    ids = np.full((1, 512), 7, dtype=np.int64)
    request.infer({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return np.array(request.get_tensor("buckets").data)


def test_float16_weights_move_no_bucket_of_mpnet(tmp_path: Path) -> None:
    checkpoint = build("mpnet", tmp_path / "mpnet", "mean")
    precisions = ["fp32", "fp16"]
    out = export_model(OpenVinoExporter(), str(checkpoint), tmp_path / "out", precisions=precisions, check=False).folder
    full, half = map(mpnet_buckets, (out / "openvino_model.xml", out / "openvino/openvino_model_fp16.xml"))
    assert full.shape == (512, 512)
    assert len(np.unique(full)) > 8
    np.testing.assert_array_equal(half, full)


def test_the_order_of_precisions_does_not_change_the_files(tiny: Path, tmp_path: Path) -> None:
    orders = (["fp32", "fp16"], ["fp16", "fp32"], ["fp16"])
    folders = [
        export_model(OpenVinoExporter(), str(tiny), tmp_path / "-".join(order), precisions=order, check=False).folder
        for order in orders
    ]
    for folder in folders[1:]:
        for path in sorted(folder.rglob("openvino_model*")):
            name = path.relative_to(folder)
            assert path.read_bytes() == (folders[0] / name).read_bytes(), name
    assert not (folders[2] / "openvino_model.xml").exists()


@pytest.mark.parametrize("shape", ["512", "1x", "0x512", "axb"])
def test_a_shape_that_is_none_is_said(shape: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["openvino", "x", "-o", str(tmp_path / "out"), "--static-shape", shape]) == 2
    assert "such as 1x512" in capfd.readouterr().err


def test_a_static_shape_is_baked_in_and_proven(tiny: Path, tmp_path: Path) -> None:
    done = export_model(OpenVinoExporter(static_shape=(1, 512)), str(tiny), tmp_path / "out")
    assert done.proof is not None
    assert done.proof.verdict.passed
    (artifact,) = read_bundle(done.folder)[1]
    model = openvino.Core().read_model(done.folder / artifact.model)
    assert [port.get_partial_shape().to_shape() for port in model.inputs] == [[1, 512]] * 3
