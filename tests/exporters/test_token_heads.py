"""BGE-M3, SPLADE and ColBERT end to end: exported, proven, and refused where a head of the file is wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from token_heads import build_colbert, build_m3, build_splade

from bge_export.build.recipe import Recipe
from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.cli.loading import loading_lines
from bge_export.commands import check_parity, export
from bge_export.commands.exports import Exported
from bge_export.compatibility.check import check_targets
from bge_export.errors import CheckpointError, UsageError
from bge_export.files.digest import file_sha256
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.show.html import render_html
from bge_export.parity.show.render import as_json
from bge_export.publish.card import card_text
from bge_export.publish.facts import CardFacts

BUILDERS: dict[str, Callable[[Path], Path]] = {"m3": build_m3, "splade": build_splade, "colbert": build_colbert}
OUTPUTS = {
    "m3": ["dense_vecs", "sparse_weights", "colbert_vecs"],
    "splade": ["sparse_embedding"],
    "colbert": ["token_embeddings"],
}
LIMITS = Path(__file__).parents[2] / "parity_fixtures" / "thresholds.toml"


def written(source: Path, out: Path, *targets: str, **more: object) -> Exported:
    return export(
        Recipe.model_validate(
            {
                "targets": targets,
                "source": {"model": str(source), "allow_pickle": True, **more},
                "output": {"folder": out},
            }
        )
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """Each kind of model in ONNX fp32, proven."""
    folder = tmp_path_factory.mktemp("token-heads")
    return {
        kind: written(build(folder / kind), folder / f"{kind}-out", "onnx:fp32") for kind, build in BUILDERS.items()
    }


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_head_of_a_model_is_exported_and_proven(made: dict[str, Exported], kind: str) -> None:
    proof = made[kind].proof
    assert proof is not None
    assert proof.verdict.passed, [bad.message for bad in proof.verdict.failures[:3]]

    (model,) = read_manifest(made[kind].folder).models
    assert model.outputs == OUTPUTS[kind]
    lanes = [lane for lane in proof.report.lanes if lane.runtime == "onnxruntime"]
    assert [lane.output for lane in lanes] == OUTPUTS[kind]
    assert all(len(lane.facts_of_texts) == proof.report.texts.count for lane in lanes)


def test_figures_of_float32_are_those_of_rounding(made: dict[str, Exported]) -> None:
    lanes = [lane for one in made.values() if one.proof for lane in one.proof.report.lanes]
    weights = [row for lane in lanes for row in lane.weights]
    vectors = [row for lane in lanes for row in lane.vectors]

    assert max(row.difference or 0 for row in weights) < 5e-5
    assert max(row.largest for row in weights) > 1
    assert min(row.token_cosine or 0 for row in vectors) > 0.9999999
    assert max(row.norm_error or 0 for row in vectors) < 1e-6
    assert max(error or 0 for row in vectors for error in row.batch_norm_error.values()) < 1e-6
    assert max(row.max_sim_error or 0 for row in vectors) < 1e-5


def damaged(made: Exported, out: Path, change: Callable[[onnx.ModelProto], None]) -> set[str]:
    """Return the rules that refuse a folder whose graph was changed and whose manifest was sealed again."""
    shutil.copytree(made.folder, out)
    path = out / "onnx" / "model.onnx"
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)

    manifest = json.loads((out / "bge_export.json").read_text("utf-8"))
    manifest["files"]["onnx/model.onnx"] = file_sha256(path)
    (out / "bge_export.json").write_text(json.dumps(manifest), "utf-8")

    source = str(made.folder).removesuffix("-out")
    proof = check_parity(out, source, lanes=["onnxruntime:cpu"], allow_pickle=True)
    assert not proof.verdict.passed
    return {f"{bad.rule} {bad.lane.rpartition(' ')[2]}" for bad in proof.verdict.failures}


def named(model: onnx.ModelProto, part: str) -> onnx.TensorProto:
    return next(one for one in model.graph.initializer if part in one.name)


def scaled(part: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    """Return a change that multiplies a weight."""

    def change(model: onnx.ModelProto) -> None:
        tensor = named(model, part)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))

    return change


def one_row(part: str) -> Callable[[onnx.ModelProto], None]:
    """Return a change that turns the first column of a projection around, and leaves the rest."""

    def change(model: onnx.ModelProto) -> None:
        tensor = named(model, part)
        values = numpy_helper.to_array(tensor).copy()
        values[..., 0] = -values[..., 0]
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return change


def without_relu(model: onnx.ModelProto) -> None:
    node = next(one for one in model.graph.node if one.op_type == "Relu" and one.name.startswith("pooling"))
    node.op_type = "Identity"


def mean_of_tokens(model: onnx.ModelProto) -> None:
    node = next(one for one in model.graph.node if one.op_type == "ReduceMax")
    node.op_type = "ReduceMean"


@pytest.mark.parametrize(
    ("kind", "change", "rule"),
    [
        ("m3", scaled("pooling/heads.1", 1.001), "token-weight sparse_weights"),
        ("m3", without_relu, "token-weight sparse_weights"),
        ("m3", one_row("pooling/heads.2/layers.0/MatMul"), "token-vector colbert_vecs"),
        ("splade", mean_of_tokens, "token-weight sparse_embedding"),
        ("colbert", one_row("pooling/heads.0/layers.0/MatMul"), "token-vector token_embeddings"),
    ],
)
def test_a_wrong_head_is_refused_by_its_own_figures(
    made: dict[str, Exported], tmp_path: Path, kind: str, change: Callable[[onnx.ModelProto], None], rule: str
) -> None:
    assert rule in damaged(made[kind], tmp_path / "damaged", change)


def test_the_heads_of_bge_m3_are_never_dropped_by_accident(tmp_path: Path) -> None:
    source = build_m3(tmp_path / "m3")
    with pytest.raises(CheckpointError, match=r"sparse_linear\.pt and colbert_linear\.pt.*--allow-pickle.*--as embed"):
        export(Recipe.model_validate({"targets": ["onnx:fp32"], "source": {"model": str(source)}}))

    (source / "colbert_linear.pt").unlink()
    with pytest.raises(CheckpointError, match=r"one of BGE-M3's two heads: colbert_linear\.pt is missing"):
        written(source, tmp_path / "out", "onnx:fp32")


def test_as_embedding_drops_the_other_heads(tmp_path: Path) -> None:
    source = build_m3(tmp_path / "m3")
    made = export(
        Recipe.model_validate(
            {
                "targets": ["onnx:fp32"],
                "source": {"model": str(source), "head": "embedding"},
                "output": {"folder": tmp_path / "out"},
                "proof": {"check": False},
            }
        )
    )
    assert read_manifest(made.folder).spec.only_dense


@pytest.mark.parametrize(("kind", "target"), [("m3", "onnx:int8"), ("splade", "onnx:q4"), ("colbert", "openvino:int8")])
def test_precisions_that_a_head_does_not_have_are_refused_by_name(tmp_path: Path, kind: str, target: str) -> None:
    source = BUILDERS[kind](tmp_path / kind)
    precision = target.partition(":")[2]
    with pytest.raises(UsageError, match=f"has no {precision} of models with the head"):
        written(source, tmp_path / "out", target)
    assert not (tmp_path / "out").exists()


def test_the_manifest_says_what_to_keep_and_where_the_weights_came_from(made: dict[str, Exported]) -> None:
    manifest = read_manifest(made["m3"].folder)
    heads = manifest.spec.heads

    assert manifest.source.pickles == ["sparse_linear.pt", "colbert_linear.pt"]
    assert heads.sparse is not None
    assert heads.sparse.unused == (0, 1, 2, 3)  # <s>, <pad>, </s>, <unk>
    assert heads.multi_vector is not None
    assert heads.multi_vector.skipped == 1
    assert (made["m3"].folder / "1_Pooling" / "config.json").exists()  # of the dense head, for sentence-transformers
    assert read_bundle(made["m3"].folder)[1][0].spec.heads.keys() == {"dense", "sparse", "multi_vector"}


def test_a_reference_file_holds_the_answers_of_all_heads(made: dict[str, Exported], tmp_path: Path) -> None:
    from bge_export.commands import write_reference

    for kind, one in made.items():
        path = tmp_path / f"{kind}.npz"
        write_reference(str(one.folder).removesuffix("-out"), path, allow_pickle=True)
        read = ReferenceVectors.read(path)
        proof = check_parity(one.folder, str(path), lanes=["onnxruntime:cpu"])

        assert proof.verdict.passed, [bad.message for bad in proof.verdict.failures[:3]]
        assert (read.tokens is None) == (kind == "splade")


@pytest.mark.parametrize("kind", BUILDERS)
def test_no_library_of_one_vector_a_text_is_said_to_fit(made: dict[str, Exported], kind: str) -> None:
    (whole, *_) = check_targets(made[kind].folder, ["fastembed"]).files
    assert whole.state == "refused"
    assert OUTPUTS[kind][0] in whole.findings[0].got


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_card_and_the_last_lines_of_an_export_name_each_output(made: dict[str, Exported], kind: str) -> None:
    one = made[kind]
    assert one.proof is not None
    facts, policy = CardFacts("somebody/model"), ThresholdPolicy.read(LIMITS)
    card = card_text(one.folder, read_manifest(one.folder), facts, one.proof.report, policy)

    example = card.partition("<!-- example: onnxruntime -->\n```python\n")[2].partition("```")[0]
    program = example.replace('snapshot_download("somebody/model",', f"str({str(one.folder)!r}) or dict(")
    program = program.replace("from huggingface_hub import snapshot_download\n", "")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(") == len(OUTPUTS[kind])

    lines = "\n".join(loading_lines(one.folder))
    known: dict[str, np.ndarray] = {}
    exec(lines, known)
    assert all(len(known[name]) for name in OUTPUTS[kind])


@pytest.mark.parametrize("kind", BUILDERS)
def test_page_and_json_show_the_figures_of_each_head(made: dict[str, Exported], kind: str) -> None:
    proof = made[kind].proof
    assert proof is not None
    page = render_html(proof.report, proof.verdict, ThresholdPolicy.read(LIMITS))
    lanes = as_json(proof.report, proof.verdict)["lanes"]

    assert all(output in page for output in OUTPUTS[kind])
    assert all(lane["worst_text"] in page for lane in lanes if lane["worst_text"])
    if kind != "colbert":
        assert any(lane["largest_weight_difference"] is not None for lane in lanes)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("m3", ("BGEM3FlagModel(folder", "sparse_linear", "draws both layers at random", "SentenceTransformer(")),
        ("splade", ('SparseEncoder("somebody/model")', "language model's logits")),
        ("colbert", ('MultiVectorEncoder("somebody/model")', "token states")),
    ],
)
def test_the_card_of_a_folder_with_weights_says_how_its_own_library_loads_it(
    made: dict[str, Exported], kind: str, said: tuple[str, ...]
) -> None:
    one = made[kind]
    assert one.proof is not None
    facts, policy, manifest = CardFacts("somebody/model"), ThresholdPolicy.read(LIMITS), read_manifest(one.folder)
    without = card_text(one.folder, manifest, facts, one.proof.report, policy)
    weights = manifest.model_copy(update={"weights": ["model.safetensors"]})
    card = card_text(one.folder, weights, facts, one.proof.report, policy)

    assert all(part in card for part in said)
    assert said[0] not in without
    block = card.partition("```python\n")[2].partition("```")[0]
    compile(block, "card", "exec")
