from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from architectures import build
from exporting import export_model
from noise_limits import noise_limits

from bge_export.bundle.integrity import MANIFEST, REPORT
from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported
from bge_export.errors import OutputError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.graph import saving
from bge_export.heads.dense import dense_head
from bge_export.precision import model_file

KINDS = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")
ROUNDED = ("uint8", "int8-dynamic", "q4", "q4f16", "bnb4")
POOLINGS = ("cls", "mean", "last")


@pytest.fixture(scope="module")
def graph(tiny_export: Exported) -> onnx.ModelProto:
    return onnx.load(tiny_export.folder / "onnx/model.onnx")


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_and_pooling_is_proven_in_both_precisions(kind: str, pooling: str, tmp_path: Path) -> None:
    checkpoint = build(kind, tmp_path / kind, pooling)
    done = export_model(
        OnnxExporter(sentence_embedding=True),
        str(checkpoint),
        tmp_path / "out",
        precisions=["fp32", "fp16"],
    )
    assert done.proof is not None
    assert [bad.message for bad in done.proof.verdict.failures] == []
    assert {(lane.target, lane.output) for lane in done.proof.report.lanes} == {
        (target, output)
        for target in ("onnx-fp32", "onnx-fp16")
        for output in ("last_hidden_state", "sentence_embedding")
    }
    inputs = read_bundle(done.folder)[1][0].inputs
    assert ("token_type_ids" in inputs) == (kind == "bert")


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_is_proven_with_rounded_weights(kind: str, tmp_path: Path) -> None:
    done = export_model(
        OnnxExporter(sentence_embedding=True),
        str(build(kind, tmp_path / kind, "mean")),
        tmp_path / "out",
        precisions=ROUNDED,
        along=["fp32"],
        thresholds=noise_limits(tmp_path),
    )
    assert done.proof is not None
    assert [bad.message for bad in done.proof.verdict.failures] == []
    assert {lane.target for lane in done.proof.report.lanes if lane.measured} == {
        f"onnx-{precision}" for precision in ("fp32", *ROUNDED)
    }
    full = onnx.load(done.folder / "onnx/model.onnx").graph
    for precision in ROUNDED:
        graph = onnx.load(done.folder / model_file("onnx", precision))
        onnx.checker.check_model(graph)
        assert graph.ir_version == 8
        assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 17
        ends = [(v.name, v.type.tensor_type.elem_type) for v in (*graph.graph.input, *graph.graph.output)]
        assert ends == [(v.name, v.type.tensor_type.elem_type) for v in (*full.input, *full.output)]
        constants = {tensor.name for tensor in graph.graph.initializer}
        wide = [node.name for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in constants]
        assert wide == [], precision


def test_fp32_goes_along_only_where_the_folder_has_none(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_model(OnnxExporter(), str(tiny), out, precisions=["uint8"], along=["fp32"], check=False)
    first = (out / "onnx/model.onnx").read_bytes()
    assert [str(item.target) for item in read_bundle(out)[1]] == ["onnx-fp32", "onnx-uint8"]
    export_model(OnnxExporter(), str(tiny), out, precisions=["int8-dynamic"], along=["fp32"], check=False)
    assert {str(item.target) for item in read_bundle(out)[1]} == {"onnx-fp32", "onnx-uint8", "onnx-int8-dynamic"}
    assert (out / "onnx/model.onnx").read_bytes() == first
    names = {path.name for path in (out / "onnx").iterdir()}
    assert names == {"model.onnx", "model_uint8.onnx", "model_int8.onnx"}
    with pytest.raises(OutputError, match="has onnx-uint8 already"):
        export_model(OnnxExporter(), str(tiny), out, precisions=["uint8"], along=["fp32"], check=False)


def test_rounded_files_have_the_same_bytes_whatever_is_written_beside_them(tiny: Path, tmp_path: Path) -> None:
    alone = [export_model(OnnxExporter(), str(tiny), tmp_path / p, precisions=[p], check=False) for p in ROUNDED]
    together = export_model(OnnxExporter(), str(tiny), tmp_path / "all", precisions=ROUNDED, check=False).folder
    for one in alone:
        for item in read_bundle(one.folder)[1]:
            assert (one.folder / item.model).read_bytes() == (together / item.model).read_bytes(), item.model


def test_two_exports_of_the_same_input_give_the_same_bytes(tiny: Path, tiny_export: Exported, tmp_path: Path) -> None:
    again = export_model(
        OnnxExporter(sentence_embedding=True),
        str(tiny),
        tmp_path / "again",
        precisions=["fp32", "fp16"],
    ).folder
    names = sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert names == sorted(p.relative_to(tiny_export.folder) for p in tiny_export.folder.rglob("*") if p.is_file())
    for name in names:
        assert (again / name).read_bytes() == (tiny_export.folder / name).read_bytes(), name


def test_the_graph_is_what_consumers_expect(graph: onnx.ModelProto) -> None:
    def ends(values):
        kinds = [(v.name, v.type.tensor_type.elem_type) for v in values]
        axes = [[dim.dim_param or dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in values]
        return kinds, axes

    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert graph.ir_version == 8
    tokens = ["batch_size", "sequence_length"]
    names = ["input_ids", "attention_mask", "token_type_ids"]
    assert ends(graph.graph.input) == ([(n, onnx.TensorProto.INT64) for n in names], [tokens] * 3)
    assert ends(graph.graph.output) == (
        [("last_hidden_state", onnx.TensorProto.FLOAT), ("sentence_embedding", onnx.TensorProto.FLOAT)],
        [[*tokens, 64], ["batch_size", 64]],
    )
    onnx.checker.check_model(graph, full_check=True)


def test_nothing_of_the_tracing_is_left(graph: onnx.ModelProto) -> None:
    operators = Counter(node.op_type for node in graph.graph.node)
    assert not operators.keys() & {"Constant", "Identity", "Where", "Range", "If", "Loop"}
    assert operators["Shape"] <= 2  # the positions, and the eps of the normalisation
    targets = {t.name: onnx.numpy_helper.to_array(t) for t in graph.graph.initializer}

    # Rows of tokens say neither how many texts nor how long they are: two sizes are computed, once for all layers.
    sizes = {node.output[0] for node in graph.graph.node if node.op_type == "Concat"}
    assert len(sizes) == operators["Concat"] == 2
    for node in graph.graph.node:
        if node.op_type == "Reshape":
            assert node.input[1] in targets or node.input[1] in sizes, node.name
    small = [t for t in targets.values() if t.size <= 16]
    assert len({(t.dtype.str, t.shape, t.tobytes()) for t in small}) == len(small)
    used = {name for node in graph.graph.node for name in node.input}
    assert set(targets) <= used


def test_float16_keeps_float32_ends_and_halves_the_weights(tiny_export: Exported, graph: onnx.ModelProto) -> None:
    half = onnx.load(tiny_export.folder / "onnx/model_fp16.onnx")
    for full_end, half_end in zip(
        [*graph.graph.input, *graph.graph.output], [*half.graph.input, *half.graph.output], strict=True
    ):
        assert full_end.name == half_end.name
        assert full_end.type.tensor_type.elem_type == half_end.type.tensor_type.elem_type
    integers = (onnx.TensorProto.INT64,)
    large = [t for t in half.graph.initializer if np.prod(t.dims) > 16 and t.data_type not in integers]
    assert {t.data_type for t in large} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 512), (7, 3), (3, 100)])
def test_every_batch_size_and_length_runs(tiny_export: Exported, batch: int, length: int) -> None:
    for name in ("model", "model_fp16"):
        session = onnxruntime.InferenceSession(tiny_export.folder / f"onnx/{name}.onnx")
        ids = np.full((batch, length), 5, dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        states, embedding = session.run(None, feed)
        assert states.shape == (batch, length, 64)
        assert embedding.shape == (batch, 64)
        assert np.isfinite(states).all()


def test_without_the_head_there_is_one_output(tiny: Path, tmp_path: Path) -> None:
    done = export_model(OnnxExporter(), str(tiny), tmp_path / "out", check=False)
    graph = onnx.load(done.folder / "onnx/model.onnx").graph
    assert [output.name for output in graph.output] == ["last_hidden_state"]
    assert not (done.folder / REPORT).exists()
    assert '"checked": false' in (done.folder / MANIFEST).read_text("utf-8")


def test_large_weights_go_into_the_file_that_javascript_clients_look_for(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "INLINE_LIMIT_BYTES", 1000)
    done = export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["fp32", "fp16"])
    assert done.proof is not None
    assert done.proof.verdict.passed
    names = {path.name for path in (done.folder / "onnx").iterdir()}
    assert names == {"model.onnx", "model.onnx_data", "model_fp16.onnx", "model_fp16.onnx_data"}
    files = read_bundle(done.folder)[1][0].files
    assert "onnx/model.onnx_data" in files
    assert (done.folder / "onnx/model.onnx").stat().st_size < 100_000


def test_the_folder_loads_in_transformers_as_a_tokenizer_and_config(tiny_export: Exported, tiny: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_export.folder)
    assert tokenizer("hello world")["input_ids"] == AutoTokenizer.from_pretrained(tiny)("hello world")["input_ids"]
    assert AutoConfig.from_pretrained(tiny_export.folder).model_type == "bert"


def test_a_checkpoint_opened_from_the_folder_promises_the_same(tiny_export: Exported, tiny: Path) -> None:
    from bge_export.checkpoint.pooling_files import read_sentence_files

    spec = open_checkpoint(tiny).spec
    head = dense_head(spec)
    written = read_sentence_files(tiny_export.folder)
    assert (written.pooling, written.normalize, written.prompts) == (
        head.pooling,
        head.normalize,
        spec.inputs.prompts,
    )
