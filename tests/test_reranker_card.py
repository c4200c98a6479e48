"""The card and the last lines of a reranker say pairs and logits, and nothing of embeddings."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper
from rich.console import Console
from score_world import PAIRS, POLICY, SPEC, on_pair, score_report

from bge_export.bundle.integrity import CARD
from bge_export.bundle.manifest import SCHEMA, Manifest, Model, Source
from bge_export.cli.loading import loading_lines
from bge_export.compatibility.check import check_targets
from bge_export.contracts import LAST_HIDDEN_STATE, LOGITS
from bge_export.files.spec import SpecRecord
from bge_export.graph.answers import answers_only
from bge_export.parity.gate.judge import judge
from bge_export.parity.show.render import render
from bge_export.publish.card import card_text
from bge_export.publish.facts import CardFacts
from bge_export.publish.figures import other_figures

FILE = "onnx/model.onnx"


def manifest_of(weights: tuple[str, ...] = ()) -> Manifest:
    model = Model(
        target="onnx-fp32",
        files=[FILE],
        inputs=["input_ids", "attention_mask", "token_type_ids"],
        outputs=[LOGITS],
        tools={},
        options={},
    )
    source = Source(id="tiny", revision=None, digest="d" * 64, model_type="bert")
    spec = SpecRecord.of(SPEC)
    return Manifest(
        schema_=SCHEMA, source=source, spec=spec, models=[model], weights=list(weights), files={}, checked=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "onnx").mkdir()
    (tmp_path / FILE).write_bytes(b"model")
    return tmp_path


def card_of(folder: Path, weights: tuple[str, ...] = ()) -> str:
    report = score_report(on_pair("q2-3", lambda logit: logit + 0.25))
    text = card_text(folder, manifest_of(weights), CardFacts("somebody/tiny"), report, POLICY)
    (folder / CARD).write_text(text, "utf-8")
    return text


def test_the_card_is_of_a_reranker(folder: Path) -> None:
    card = card_of(folder)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "text-ranking"
    assert {"reranker", "cross-encoder", "onnx"} <= set(front["tags"])
    assert not {"sentence-similarity", "feature-extraction"} & set(front["tags"])
    assert "0.25" in card
    assert "None" not in card


def test_the_card_shows_calls_that_keep_the_raw_logit_and_warns_of_the_softmax(folder: Path) -> None:
    card = card_of(folder)
    assert 'CrossEncoder("somebody/tiny", backend="onnx", activation_fn=torch.nn.Identity()' in card
    assert '"token_type_ids": np.array([encoded.type_ids]' in card
    assert "softmax of a single one is 1 for every pair" in card
    assert "AutoModelForSequenceClassification.from_pretrained('somebody/tiny'" in card
    assert "FlagReranker" not in card
    assert 'FlagReranker("somebody/tiny")' in card_of(folder, ("model.safetensors",))


def test_the_figures_of_the_card_are_compared_with_the_report(folder: Path) -> None:
    card_of(folder)
    report = score_report(on_pair("q2-3", lambda logit: logit + 0.25))
    assert other_figures(folder, [FILE], report) == ()
    assert other_figures(folder, [FILE], score_report()) == (FILE,)


def test_the_terminal_names_the_worst_pair_in_either_width() -> None:
    report = score_report(on_pair("q2-3", lambda logit: logit + 0.25))
    verdict = judge(report, POLICY, PAIRS)
    for width in (80, 160):
        console = Console(width=width, record=True, file=None)
        with console.capture() as captured:
            console.print(render(report, verdict, width))
        assert "q2-3" in captured.get()
        assert "tau" in captured.get()
        assert "cosine" not in captured.get()


def test_the_last_lines_of_an_export_score_a_pair(folder: Path) -> None:
    fields = manifest_of().model_dump()
    (folder / "bge_export.json").write_text(json.dumps({"schema": fields.pop("schema_"), **fields}), "utf-8")
    lines = "\n".join(loading_lines(folder))
    assert 'encode("how far is the moon", "384,400 km on average")' in lines
    assert "tokens.type_ids" in lines
    assert "score = logits[0, 0]" in lines
    assert "embedding" not in lines
    compile(lines, "lines", "exec")


def graph_with_states() -> onnx.ModelProto:
    """Return ids -> states -> logits, and a cast that only the states need."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], [LAST_HIDDEN_STATE], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["wide", "axis"], [LOGITS], keepdims=1),
    ]
    shape = ["batch_size", "sequence_length"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")]
    states = helper.make_tensor_value_info(LAST_HIDDEN_STATE, TensorProto.FLOAT, shape)
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch_size", 1])
    axis = onnx.numpy_helper.from_array(np.array([1]), "axis")
    graph = helper.make_graph(nodes, "g", inputs, [states, logits], [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_states_leave_a_rerankers_graph_with_all_that_only_they_need() -> None:
    from fakes import SPEC as DENSE

    untouched = answers_only(graph_with_states(), DENSE)
    assert [value.name for value in untouched.graph.output] == [LAST_HIDDEN_STATE, LOGITS]

    model = answers_only(graph_with_states(), SPEC)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.output] == [LOGITS]
    assert [list(node.output) for node in model.graph.node] == [["half"], ["wide"], [LOGITS]]


def test_check_takes_logits_and_measures_no_host_with_single_texts(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    model = answers_only(graph_with_states(), SPEC)
    for name in (FILE, "onnx/model_quantized.onnx"):
        onnx.save_model(model, tmp_path / name)
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")

    def never(*_: object) -> None:
        raise AssertionError("a reranker was measured")

    found = check_targets(tmp_path, ["transformers.js@4", "supabase-edge"], measuring=never)  # type: ignore[arg-type]
    rules = {(file.target, finding.rule) for file in found.files if file.file for finding in file.findings}
    assert rules == {("supabase-edge", "host")}
