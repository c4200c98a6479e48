"""What follows pooling, from end to end: each file, and whoever pools its states by the folder, gives those vectors."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from exporting import export_recipe
from following import LAYER_NORM, NORMALIZE, Step, dense, embedded, follow, truncate
from tiny_checkpoint import write_pooling

import bge_export
from bge_export.build.recipe import Output, Recipe, Source
from bge_export.bundle.contract import read_contract
from bge_export.bundle.manifest import read_bundle, read_manifest, write_manifest
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands import Exported, check_parity, export
from bge_export.contracts import Artifact, ModelSpec, Target, TokenBatch
from bge_export.errors import ArtifactError
from bge_export.runtimes import find_runtime
from bge_export.texts.tokens import TextTokenizer

TEXTS = ("That is a happy person", "dogs and cats", "A man is playing guitar.", "!", "the " * 300)

CHAINS: dict[str, Sequence[Step]] = {
    "Dense and Normalize": (dense(16), NORMALIZE),
    "all activations": (
        dense(32, "linear.Identity", bias=False),
        dense(32, "activation.ReLU"),
        dense(32, "activation.GELU"),
        dense(32, "activation.SiLU"),
        dense(24, "activation.Sigmoid"),
    ),
    "LayerNorm": (LAYER_NORM,),
    "in another order": (NORMALIZE, dense(96, "linear.Identity"), LAYER_NORM, NORMALIZE, NORMALIZE),
}
"""What follows CLS pooling."""


TARGETS = {"in another order": ("onnx:fp32", "onnx:fp16", "openvino:fp32", "torchscript:fp32")}
"""What is exported, besides ONNX in float32."""


@pytest.fixture(scope="module", params=CHAINS)
def chain(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(chain: str, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return follow(tiny, tmp_path_factory.mktemp("following") / "checkpoint", CHAINS[chain])


@pytest.fixture(scope="module")
def exported(chain: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_recipe(checkpoint, tmp_path_factory.mktemp("out") / "folder", TARGETS.get(chain, ("onnx:fp32",)))


def export_cut(model: Path, out: Path, dim: int) -> Exported:
    source = Source(model=str(model), dim=dim)
    return export(Recipe(targets=(Target("onnx", "fp32"),), source=source, output=Output(folder=out)), threads=1)


def proven(exported: Exported) -> None:
    assert exported.proof is not None
    assert [bad.message for bad in exported.proof.verdict.failures] == []


def outputs_of(artifact: Artifact, batch: TokenBatch) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(artifact.root / artifact.model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, batch.feed(artifact.inputs)), strict=True))


def test_every_target_is_proven_by_both_outputs(chain: str, exported: Exported) -> None:
    proven(exported)
    assert exported.proof is not None
    lanes = {(lane.target, lane.output) for lane in exported.proof.report.lanes if lane.measured}
    assert {output for _, output in lanes} == {"last_hidden_state", "sentence_embedding"}
    assert len(lanes) == 2 * len(TARGETS.get(chain, ("onnx:fp32",)))


def test_the_graph_and_whoever_loads_the_folder_give_the_vectors_of_the_modules(
    checkpoint: Path, exported: Exported
) -> None:
    truth = embedded(checkpoint, TEXTS)
    with bge_export.load(exported.folder) as model:
        assert model.width == truth.shape[1]
        np.testing.assert_allclose(model.encode(TEXTS), truth, atol=1e-5)

    _, artifacts = read_bundle(exported.folder)
    fp32 = next(one for one in artifacts if str(one.target) == "onnx-fp32")
    tokenizer = TextTokenizer.load(fp32.root, fp32.spec.inputs.max_tokens)
    batch = tokenizer.pad(tokenizer.encode(TEXTS))
    np.testing.assert_allclose(outputs_of(fp32, batch)["sentence_embedding"], truth, atol=1e-5)


def test_the_folder_is_a_checkpoint_of_the_same_promise_and_vectors(
    checkpoint: Path, exported: Exported, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(exported.folder, tmp_path / "again"))
    shutil.copyfile(checkpoint / "model.safetensors", again / "model.safetensors")
    assert open_checkpoint(again).spec == open_checkpoint(checkpoint).spec
    np.testing.assert_allclose(embedded(again, TEXTS), embedded(checkpoint, TEXTS), atol=1e-6)


def test_the_contract_lists_the_layers_with_their_weights(exported: Exported) -> None:
    contract, manifest = read_contract(exported.folder), read_manifest(exported.folder)
    layers = contract.embedding.layers
    assert [layer.dim for layer in layers] == [layer.dim for layer in manifest.spec.dense.layers]
    files = [layer.file for layer in layers if layer.file is not None]
    assert files
    assert set(files) <= manifest.files.keys()
    assert all(one.outputs["sentence_embedding"] == "embedding" for one in contract.files)


# Wrong ones are refused.


def test_another_matrix_in_the_folder_is_refused_by_name_and_by_the_vectors(tiny: Path, tmp_path: Path) -> None:
    right = follow(tiny, tmp_path / "right", (dense(16), NORMALIZE))
    other = follow(tiny, tmp_path / "other", (dense(16), NORMALIZE), seed=1)
    folder = export_recipe(right, tmp_path / "out", ["onnx:fp32"]).folder
    shutil.copyfile(other / "2_Dense/model.safetensors", folder / "2_Dense/model.safetensors")
    with pytest.raises(ArtifactError, match="2_Dense"):
        read_bundle(folder)

    write_manifest(folder, open_checkpoint(right), read_manifest(folder).models, checked=True)
    proof = check_parity(folder, str(right))
    refused = {(bad.rule, bad.lane.rpartition(" ")[2] if bad.lane else "") for bad in proof.verdict.failures}
    assert {"cosine", "foreign-files"} & {rule for rule, _ in refused}
    assert ("cosine", "last_hidden_state") in refused
    assert ("cosine", "sentence_embedding") not in refused


@pytest.mark.parametrize(
    "wrong",
    [
        (dense(16, "linear.Identity"), NORMALIZE),
        (NORMALIZE, dense(16), NORMALIZE),
        (dense(16),),
        (LAYER_NORM, dense(16), NORMALIZE),
    ],
    ids=["no activation", "divided before", "not divided after", "a layer more"],
)
def test_a_graph_with_another_chain_is_refused(wrong: Sequence[Step], tiny: Path, tmp_path: Path) -> None:
    right = follow(tiny, tmp_path / "right", (dense(16), NORMALIZE))
    other = follow(tiny, tmp_path / "other", wrong)
    for path in other.glob("*_Dense/model.safetensors"):  # the same matrix, used otherwise
        shutil.copyfile(right / "2_Dense/model.safetensors", path)

    folder = export_recipe(right, tmp_path / "out", ["onnx:fp32"]).folder
    stranger = export_recipe(other, tmp_path / "stranger", ["onnx:fp32"]).folder
    shutil.copyfile(stranger / "onnx/model.onnx", folder / "onnx/model.onnx")
    write_manifest(folder, open_checkpoint(right), read_manifest(folder).models, checked=True)

    failures = check_parity(folder, str(right)).verdict.failures
    assert {bad.lane.rpartition(" ")[2] for bad in failures if bad.lane} == {"sentence_embedding"}
    assert {"cosine", "norm"} & {bad.rule for bad in failures}


# A vector that is cut.


@pytest.mark.parametrize("declared", [True, False], ids=["truncate_dim", "--dim"])
def test_a_cut_vector_is_divided_by_its_norm_again_and_served_by_the_folder(
    declared: bool, tiny: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    if declared:
        exported = export_recipe(truncate(checkpoint, 16), tmp_path / "out", ["onnx:fp32"])
    else:
        exported = export_cut(checkpoint, tmp_path / "out", 16)
    proven(exported)
    assert any("the first 16 of 64 dimensions" in note for note in exported.notes)

    cut = embedded(tiny, TEXTS)[:, :16]
    truth = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    with bge_export.load(exported.folder) as model:
        np.testing.assert_allclose(model.encode(TEXTS), truth, atol=1e-5)

    shutil.copyfile(checkpoint / "model.safetensors", exported.folder / "model.safetensors")
    np.testing.assert_allclose(embedded(exported.folder, TEXTS), truth, atol=1e-5)


def test_a_cut_vector_that_no_module_divides_keeps_its_length(tiny: Path, tmp_path: Path) -> None:
    checkpoint = truncate(follow(tiny, tmp_path / "checkpoint", (dense(32),)), 8)
    exported = export_recipe(checkpoint, tmp_path / "out", ["onnx:fp32", "openvino:fp32"])
    proven(exported)
    with bge_export.load(exported.folder) as model:
        np.testing.assert_allclose(model.encode(TEXTS), embedded(checkpoint, TEXTS)[:, :8], atol=1e-5)


def test_a_folder_of_another_width_is_measured_with_its_own_and_not_extended(tiny: Path, tmp_path: Path) -> None:
    folder = export_cut(tiny, tmp_path / "out", 16).folder
    proof = check_parity(folder, str(tiny))
    assert [bad.message for bad in proof.verdict.failures] == []
    with pytest.raises(bge_export.errors.BgeExportError, match="--overwrite"):
        export_cut(tiny, tmp_path / "out", 32)


def test_int8_keeps_the_limits_with_a_layer_behind_it(tiny: Path, tmp_path: Path) -> None:
    checkpoint = follow(tiny, tmp_path / "checkpoint", (dense(32), NORMALIZE))
    proven(export_recipe(checkpoint, tmp_path / "out", ["onnx:int8"]))


def test_bfloat16_weights_of_a_module_become_float32(tiny: Path, tmp_path: Path) -> None:
    checkpoint = follow(tiny, tmp_path / "checkpoint", (dense(16), NORMALIZE), dtype=torch.bfloat16)
    exported = export_recipe(checkpoint, tmp_path / "out", ["onnx:fp32"])
    proven(exported)
    with bge_export.load(exported.folder) as model:
        np.testing.assert_allclose(model.encode(TEXTS), embedded(checkpoint, TEXTS), atol=1e-5)


@pytest.mark.parametrize("mode", ["max", "mean_sqrt_len_tokens", "weightedmean_tokens"])
def test_an_unusual_pooling_lies_in_the_graph_and_gives_the_vectors_of_the_library(
    mode: str, tiny: Path, tmp_path: Path
) -> None:
    checkpoint = follow(tiny, tmp_path / "checkpoint", (dense(16), NORMALIZE) if mode == "max" else ())
    flag = f"pooling_mode_{mode}_tokens" if mode == "max" else f"pooling_mode_{mode}"
    write_pooling(checkpoint, {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": False, flag: True})
    exported = export_recipe(checkpoint, tmp_path / "out", ["onnx:fp32"])
    proven(exported)

    def pooled(states: torch.Tensor) -> torch.Tensor:
        places = torch.arange(1.0, states.shape[1] + 1)[:, None]
        return {
            "max": lambda: states.max(1).values,
            "mean_sqrt_len_tokens": lambda: states.sum(1) / states.shape[1] ** 0.5,
            "weightedmean_tokens": lambda: (states * places).sum(1) / places.sum(),
        }[mode]()

    with bge_export.load(exported.folder) as model:
        np.testing.assert_allclose(model.encode(TEXTS), embedded(checkpoint, TEXTS, pooled), atol=2e-5)
    assert open_checkpoint_of(exported.folder, checkpoint, tmp_path) == open_checkpoint(checkpoint).spec


def open_checkpoint_of(folder: Path, checkpoint: Path, tmp_path: Path) -> ModelSpec:
    """Return the promise of an exported folder that is opened as a checkpoint."""
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    shutil.copyfile(checkpoint / "model.safetensors", again / "model.safetensors")
    return open_checkpoint(again).spec


# What people are told.


def test_the_command_line_says_width_and_layers_everywhere(bge, tiny: Path, tmp_path: Path) -> None:
    checkpoint = follow(tiny, tmp_path / "checkpoint", (dense(32), NORMALIZE))
    done = bge("onnx", checkpoint, "--dim", 16, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "embedding = embeddings[0]" in done.stdout + done.stderr

    shown = bge("inspect", tmp_path / "out").stdout
    assert "16 dimensions, cls pooling, Dense 64 to 32 with tanh, the first 16 of 32, normalised" in " ".join(
        shown.split()
    )
    assert bge("use", tmp_path / "out", "--for", "python").stdout.count("sentence_embedding") == 1
    for place in ("js", "deno", "java", "rust"):
        refused = bge("use", tmp_path / "out", "--for", place)
        assert refused.returncode == 2
        assert "Dense 64 to 32 with tanh" in refused.stderr

    assert bge("onnx", checkpoint, "--dim", 33, "-o", tmp_path / "wide").returncode == 2
    contract = json.loads((tmp_path / "out/embedding.json").read_text("utf-8"))
    assert [layer["kind"] for layer in contract["embedding"]["layers"]] == ["dense", "truncate"]


def test_clients_that_leave_layers_out_are_named(bge, tiny: Path, tmp_path: Path) -> None:
    checkpoint = follow(tiny, tmp_path / "checkpoint", (dense(32), NORMALIZE))
    folder = export_recipe(checkpoint, tmp_path / "out", ["onnx:fp32"]).folder
    for target in ("fastembed", "langchain4j", "tei"):
        found = bge("check", folder, "--target", target)
        assert found.returncode == 1
        assert "Dense 64 to 32" in found.stdout

    for target in ("sentence-transformers@5", "optimum-onnx", "transformers.js@4"):
        assert bge("check", folder, "--target", target).returncode == 0
    assert "sentence_embedding" in bge("check", folder, "--target", "transformers.js@4").stdout
    assert "sentence_embedding" in bge("check", folder, "--target", "optimum-onnx").stdout


def test_the_checkpoint_in_torch_is_measured_through_its_own_modules(tiny: Path, tmp_path: Path) -> None:
    from bge_export.checkpoint.opening import as_artifacts
    from bge_export.commands.measuring import named_device, run_oracle
    from bge_export.parity.measure.measurement import Measurement
    from bge_export.texts.corpus import Corpus, builtin_corpus

    checkpoint = open_checkpoint(follow(tiny, tmp_path / "checkpoint", (dense(16), NORMALIZE)))
    corpus = Corpus("few.jsonl", builtin_corpus().texts[:8])
    measurement = Measurement(corpus, run_oracle(checkpoint, corpus, 1), 1)
    (lane,) = measurement.lanes(as_artifacts(checkpoint, ("fp32",))[0], named_device("torch:cpu"))
    assert min(row.cosine for row in lane.rows) > 0.999999
    assert find_runtime("torch").name == "torch"
