"""Static embeddings from end to end: every file, and whoever pools its states, gives the library's vectors."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from bundles import seal
from exporting import export_model, export_recipe, export_transformersjs
from static_models import (
    DENSE,
    NORMALIZE,
    TEXTS,
    UNKNOWN,
    WIDTH,
    expected,
    write_model2vec,
    write_static_embedding,
)
from tokenizers import Tokenizer
from transformers import AutoTokenizer

import bge_export
from bge_export.bundle.contract import read_contract
from bge_export.commands import Exported, check_parity
from bge_export.errors import UsageError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.torchscript import TorchScriptExporter

FLOATS = ("onnx:fp32", "onnx:fp16", "openvino:fp32", "openvino:fp16", "torchscript:fp32")
KINDS = ("model2vec", "model2vec, undivided", "model2vec, quantized", "StaticEmbedding", "StaticEmbedding, divided")


def written(kind: str, folder: Path) -> Path:
    if kind == "StaticEmbedding":
        return write_static_embedding(folder, truncation=700)
    if kind == "StaticEmbedding, divided":
        return write_static_embedding(folder, NORMALIZE, inside="0_StaticEmbedding")
    return write_model2vec(folder, normalize="undivided" not in kind, quantized="quantized" in kind)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(kind, tmp_path_factory.mktemp("static") / "checkpoint")


@pytest.fixture(scope="module")
def exported(kind: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    targets = FLOATS if kind == "model2vec, undivided" else ("onnx:fp32",)
    return export_recipe(checkpoint, tmp_path_factory.mktemp("out") / "folder", targets)


def right(kind: str, checkpoint: Path, text: str) -> np.ndarray:
    longest = {"StaticEmbedding": 700, "StaticEmbedding, divided": 10_000}.get(kind, 512)
    return expected(
        checkpoint,
        text,
        model2vec=kind.startswith("model2vec"),
        normalize="undivided" not in kind and kind != "StaticEmbedding",
        longest=longest,
    )


def test_every_file_is_proven(exported: Exported) -> None:
    assert exported.proof is not None
    assert exported.proof.verdict.passed, exported.proof.verdict.failures


def test_the_package_gives_the_vectors_of_the_library(kind: str, checkpoint: Path, exported: Exported) -> None:
    with bge_export.load(exported.folder) as model:
        rows = model.encode(list(TEXTS))
        alone = np.stack([model.encode(text) for text in TEXTS])
    wanted = np.stack([right(kind, checkpoint, text) for text in TEXTS])
    scale = np.maximum(1.0, np.linalg.norm(wanted, axis=1, keepdims=True))
    assert (np.abs(rows - wanted) / scale).max() <= 1e-6
    assert (np.abs(alone - wanted) / scale).max() <= 1e-6


def test_a_client_that_feeds_ids_and_mask_and_takes_the_mean_gives_them_too(
    kind: str, checkpoint: Path, exported: Exported
) -> None:
    session = onnxruntime.InferenceSession(exported.folder / "onnx/model.onnx")
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]

    tokenizer = AutoTokenizer.from_pretrained(exported.folder)
    texts = [text for text in TEXTS if text]
    feed = dict(tokenizer(texts, padding=True, truncation=True, return_tensors="np"))
    feed = {name: feed[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    (states,) = session.run(None, feed)
    mask = feed["attention_mask"][:, :, None]
    rows = (states * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)

    wanted = np.stack([right(kind, checkpoint, text) for text in texts])
    if "undivided" not in kind and kind != "StaticEmbedding":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    scale = np.maximum(1.0, np.linalg.norm(wanted, axis=1, keepdims=True))
    assert (np.abs(rows - wanted) / scale).max() <= 1e-6


def test_no_reader_of_the_folder_adds_a_special_token(exported: Exported) -> None:
    tokenizer = Tokenizer.from_file(str(exported.folder / "tokenizer.json"))
    own = AutoTokenizer.from_pretrained(exported.folder)
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids
        assert own(text, truncation=True)["input_ids"] == ids
    assert tokenizer.encode("").ids == []

    contract = read_contract(exported.folder)
    assert (contract.tokens.before, contract.tokens.after) == ([], [])
    assert contract.embedding.pooling == "mean"


def test_clients_find_a_configuration_that_they_know(exported: Exported) -> None:
    config = json.loads((exported.folder / "config.json").read_text("utf-8"))
    assert (config["model_type"], config["hidden_size"], config["num_hidden_layers"]) == ("bert", WIDTH, 0)
    modules = json.loads((exported.folder / "modules.json").read_text("utf-8"))
    assert [one["type"].rpartition(".")[2] for one in modules][:2] == ["Transformer", "Pooling"]


def test_layers_after_the_mean_are_in_the_graph_and_make_something_of_no_token(tmp_path: Path) -> None:
    checkpoint = write_static_embedding(tmp_path / "checkpoint", DENSE, NORMALIZE)
    done = export_recipe(checkpoint, tmp_path / "out", ("onnx:fp32", "openvino:fp32"))
    assert done.proof is not None
    assert done.proof.verdict.passed, done.proof.verdict.failures
    with bge_export.load(done.folder) as model:
        vector = model.encode("")
    assert vector.shape == (8,)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


def test_a_graph_gives_a_text_without_tokens_the_zero_vector(tmp_path: Path) -> None:
    checkpoint = write_model2vec(tmp_path / "checkpoint")
    done = export_model(OnnxExporter(sentence_embedding=True), str(checkpoint), tmp_path / "out")
    session = onnxruntime.InferenceSession(done.folder / "onnx/model.onnx")
    ids = np.array([[0, 0], [UNKNOWN, 0], [5, 6]], dtype=np.int64)
    mask = np.array([[0, 0], [1, 0], [1, 1]], dtype=np.int64)
    (rows,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
    assert not rows[:2].any()
    assert abs(float(np.linalg.norm(rows[2])) - 1) < 1e-6


@pytest.mark.parametrize("target", ["onnx:int8", "onnx:q4", "onnx:uint8", "openvino:int8"])
def test_rounded_weights_are_refused_by_name(target: str, tmp_path: Path) -> None:
    checkpoint = write_model2vec(tmp_path / "checkpoint")
    with pytest.raises(UsageError, match=r"static embedding.*multiplies nothing.*fp32, fp16"):
        export_recipe(checkpoint, tmp_path / "out", (target,))
    assert not (tmp_path / "out").exists()


def test_a_length_that_counts_leaves_no_embedding_in_the_graph(tmp_path: Path) -> None:
    checkpoint = write_model2vec(tmp_path / "checkpoint", normalize=False)
    with pytest.raises(UsageError, match=r"leaves unknown tokens out.*--sentence-embedding"):
        export_model(OnnxExporter(sentence_embedding=True), str(checkpoint), tmp_path / "out")


def test_a_file_of_another_table_is_refused(tmp_path: Path) -> None:
    checkpoint = write_model2vec(tmp_path / "checkpoint")
    done = export_recipe(checkpoint, tmp_path / "out", ("onnx:fp32",))
    path = done.folder / "onnx/model.onnx"
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if len(one.dims) == 2)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[UNKNOWN] = 1.0
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)

    seal(done.folder)
    verdict = check_parity(done.folder, str(checkpoint), lanes=["onnxruntime:cpu"]).verdict
    assert not verdict.passed


def test_weights_are_not_copied_where_a_library_would_take_them_for_a_bert(tmp_path: Path) -> None:
    done = export_transformersjs(
        str(write_model2vec(tmp_path / "checkpoint")), tmp_path / "out", dtypes=("fp32",), check=False
    )
    assert not list(done.folder.glob("*.safetensors"))
    card = (done.folder / "README.md").read_text("utf-8")
    assert "library_name: transformers.js" in card


def test_elands_layout_is_refused_since_elasticsearch_adds_special_tokens(tmp_path: Path) -> None:
    checkpoint = write_model2vec(tmp_path / "checkpoint")
    with pytest.raises(UsageError, match="Elasticsearch puts them around"):
        export_model(TorchScriptExporter(layout="eland"), str(checkpoint), tmp_path / "out")
