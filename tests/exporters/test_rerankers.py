"""Rerankers from end to end: each file gives the logits that transformers alone gives, in the order that it gives."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exporting import export_recipe
from rerankers import Kind, build_reranker
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bge_export.build.recipe import JavaScriptFolder, Output, Recipe, Source
from bge_export.commands import (
    Exported,
    bisect_artifact,
    check_foreign,
    check_parity,
    evaluate_pairs,
    export,
    judge_report,
)
from bge_export.contracts import Target
from bge_export.errors import UsageError
from bge_export.parity.orders import orders, spread, worst_scores
from bge_export.parity.report import Lane
from bge_export.texts.corpus import Corpus, builtin_corpus

TARGETS: Mapping[Kind, Sequence[str]] = {
    "bert": ("onnx:fp32", "onnx:fp16", "openvino:fp32", "openvino:fp16", "torchscript:fp32"),
    "xlm-roberta": ("onnx:fp32", "onnx:fp16", "onnx:int8"),
}
"""Architecture -> what is exported; int8 of BERT stands in `tests/int8/test_reranker.py`."""

LIMITS = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.2}
"""Precision -> largest difference of a logit."""


@pytest.fixture(scope="module")
def pairs() -> Corpus:
    return builtin_corpus(pairs=True)


@pytest.fixture(scope="module", params=TARGETS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_reranker(kind, tmp_path_factory.mktemp("checkpoint") / kind)


@pytest.fixture(scope="module")
def exported(kind: Kind, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_recipe(checkpoint, tmp_path_factory.mktemp("out") / "folder", TARGETS[kind])


@pytest.fixture(scope="module")
def truth(checkpoint: Path, pairs: Corpus) -> np.ndarray:
    """The logits of transformers alone, one pair at a time."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, attn_implementation="eager").eval()
    found = []
    for pair in pairs.texts:
        tokens = tokenizer([pair.query], [pair.text], truncation="longest_first", return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**tokens).logits[0].numpy())
    return np.array(found)


def lanes_of(exported: Exported) -> dict[str, Lane]:
    assert exported.proof is not None
    return {f"{lane.target}@{lane.runtime}": lane for lane in exported.proof.report.lanes}


def test_every_target_is_proven_and_floats_keep_every_order(kind: Kind, exported: Exported) -> None:
    assert exported.proof is not None
    assert exported.proof.verdict.failures == ()
    lanes = lanes_of(exported)
    onnx_files = sum(target.startswith("onnx") for target in TARGETS[kind])
    assert len(lanes) == len(TARGETS[kind]) + onnx_files  # OpenVINO reads ONNX files too

    for name, lane in lanes.items():
        worst = worst_scores(lane.scores)
        assert worst is not None
        assert worst.difference is not None
        precision = lane.target.partition("-")[2]
        assert worst.difference <= LIMITS[precision], name
        assert precision == "int8" or {order.tau for order in orders(lane.scores)} == {1.0}
        assert len(orders(lane.scores)) >= 20
        assert spread(lane.scores) > 0.5


def test_the_reference_is_what_transformers_alone_gives(exported: Exported, truth: np.ndarray) -> None:
    (lane,) = (lane for name, lane in lanes_of(exported).items() if name == "onnx-fp32@onnxruntime")
    assert np.abs([row.reference for row in lane.scores] - truth[:, 0]).max() <= 1e-6


def test_the_file_gives_what_transformers_alone_gives_to_those_who_load_both(
    exported: Exported, pairs: Corpus, truth: np.ndarray
) -> None:
    """As sentence-transformers' CrossEncoder, FlagReranker and optimum do: tokenizer and file of the folder."""
    tokenizer = AutoTokenizer.from_pretrained(exported.folder)
    session = onnxruntime.InferenceSession(exported.folder / "onnx" / "model.onnx")
    assert [value.name for value in session.get_outputs()] == ["logits"]
    assert session.get_outputs()[0].shape == ["batch_size", 1]
    names = [value.name for value in session.get_inputs()]

    for start in range(0, len(pairs.texts), 16):
        some = pairs.texts[start : start + 16]
        tokens = tokenizer(
            [pair.query for pair in some], [pair.text for pair in some], truncation=True, padding=True,
            return_tensors="np",
        )  # fmt: skip
        feed = {name: tokens[name].astype(np.int64) for name in names}
        (logits,) = session.run(None, feed)
        assert np.abs(logits - truth[start : start + 16]).max() <= 5e-5


def test_the_folder_keeps_what_loaders_of_rerankers_read_and_has_nothing_of_embeddings(
    exported: Exported, checkpoint: Path
) -> None:
    assert (exported.folder / "config.json").read_bytes() == (checkpoint / "config.json").read_bytes()
    names = {path.name for path in exported.folder.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} <= names
    assert not {"modules.json", "1_Pooling", "sentence_bert_config.json"} & names
    manifest = json.loads((exported.folder / "bge_export.json").read_text("utf-8"))
    assert manifest["spec"]["heads"] == {"score": {"labels": 1}}


def test_the_graph_holds_the_classifier_in_float32_and_no_states(exported: Exported) -> None:
    for name in ("model.onnx", "model_fp16.onnx"):
        model = onnx.load(exported.folder / "onnx" / name)
        used = {name for node in model.graph.node for name in node.input} | {"logits"}
        assert all(used.intersection(node.output) for node in model.graph.node)
        last = next(node for node in model.graph.node if "logits" in node.output)
        weights = {tensor.name: tensor for tensor in model.graph.initializer}
        assert {weights[one].data_type for one in last.input if one in weights} == {onnx.TensorProto.FLOAT}


def test_the_checkpoints_weights_beside_the_files_load_as_a_reranker(
    exported: Exported, checkpoint: Path, pairs: Corpus, truth: np.ndarray, tmp_path: Path
) -> None:
    """The torch backend of CrossEncoder and FlagReranker: the class of config.json, with the folder's tokenizer."""
    for path in (*exported.folder.glob("*.json"), checkpoint / "model.safetensors"):
        (tmp_path / path.name).write_bytes(path.read_bytes())

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    some = pairs.texts[:24]
    queries, texts = [pair.query for pair in some], [pair.text for pair in some]
    tokens = tokenizer(queries, texts, truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert np.abs(model(**tokens).logits.numpy() - truth[:24]).max() <= 5e-5


def test_what_knows_embeddings_alone_refuses_a_reranker_in_one_sentence(
    exported: Exported, checkpoint: Path, tmp_path: Path
) -> None:
    scored = tmp_path / "scored.tsv"
    scored.write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n", "utf-8")
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes((exported.folder / "onnx" / "model.onnx").read_bytes())
    recipe = Recipe(
        targets=(Target("onnx", "fp32"),),
        source=Source(model=str(checkpoint)),
        output=Output(folder=tmp_path / "js"),
        transformersjs=JavaScriptFolder(),
    )
    pooled = recipe.model_copy(update={"transformersjs": None, "options": {"onnx": {"sentence_embedding": True}}})

    for attempt in (
        lambda: evaluate_pairs(exported.folder, scored),
        lambda: bisect_artifact(exported.folder / "onnx" / "model.onnx", str(checkpoint), "a text"),
        lambda: check_foreign(foreign, str(checkpoint)),
        lambda: export(recipe),
        lambda: export(pooled),
    ):
        with pytest.raises(UsageError, match="reranker"):
            attempt()


def test_a_folder_is_measured_and_judged_again_and_says_why_javascript_is_missing(
    exported: Exported, checkpoint: Path, pairs: Corpus, tmp_path: Path
) -> None:
    assert judge_report(exported.folder / "parity.json", reference=str(checkpoint)).verdict.passed

    report = tmp_path / "again.json"
    lanes = ("torch:cpu", "transformersjs:node@4")
    some = [{"id": one.id, "query": one.query, "text": one.text} for one in pairs.texts[:8]]
    texts = tmp_path / "pairs.jsonl"
    texts.write_text("".join(f"{json.dumps(one)}\n" for one in some), "utf-8")

    proof = check_parity(exported.folder, str(checkpoint), lanes=lanes, report_path=report, texts=texts)
    unavailable = {lane.unavailable for lane in proof.report.lanes if lane.runtime == "transformersjs"}
    assert unavailable == {
        "transformersjs gives its clients single texts, and rerankers read pairs: none is measured there yet"
    }
    assert {bad.rule for bad in proof.verdict.failures if bad.lane.startswith("onnx-fp32@transformersjs")} == {
        "unavailable"
    }

    (eager,) = (lane for lane in proof.report.lanes if lane.target == "checkpoint-fp32")
    worst = worst_scores(eager.scores)
    assert worst is not None
    assert worst.difference is not None
    assert worst.difference <= 1e-4
