"""The plain arrangement, for graphs that cannot be quantized layer by layer."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from exporting import export_model
from modern import build_modern
from noise_limits import noise_limits

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.contracts import TokenBatch
from bge_export.encoder.matching import UnknownGraph
from bge_export.encoder.reading import read_encoder
from bge_export.errors import UsageError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.graph.products import constant_products
from bge_export.graph.trace import trace
from bge_export.precision.int8.write.plain import quantize_plain
from bge_export.precision.int8_options import Int8Options
from bge_export.saturation import facts_of
from bge_export.texts.tokens import TextTokenizer


def vectors(graph: onnx.ModelProto, batch: TokenBatch) -> np.ndarray:
    """Return the first states of a graph, [B, D], divided by their norms."""
    graph.ir_version = 8
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    states = session.run(None, batch.feed([value.name for value in session.get_inputs()]))[0][:, 0]
    return states / np.linalg.norm(states, axis=-1, keepdims=True)


def test_every_constant_product_is_on_integers_that_keep_the_saturation_constraint(
    unusual: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(str(unusual))
    model = trace(checkpoint, tmp_path, sentence_embedding=False)
    with pytest.raises(UnknownGraph):
        read_encoder(model)
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    texts = ("hello world", "the dog sleeps in the garden", "a question about the weather", "bees find their way")
    before = model.SerializeToString()
    variants = {residuals: plain for plain, residuals in quantize_plain(model, tokenizer.encode(texts), tokenizer)}
    assert model.SerializeToString() == before
    products = {"none": 1, "inputs": 2, "inputs and weights": 3}
    assert list(variants) == list(products)

    count = len(constant_products(model.graph))
    assert count == 12
    batch = tokenizer.pad(tokenizer.encode(texts))
    wanted = vectors(model, batch)
    smallest = {}
    for residuals, plain in variants.items():
        plain.ir_version = 8
        path = tmp_path / "plain.onnx"
        onnx.save(plain, path)
        facts = facts_of(path, "onnx")
        assert facts.weights == products[residuals] * count
        assert facts.saturating == 0
        assert not constant_products(plain.graph)
        smallest[residuals] = (wanted * vectors(plain, batch)).sum(-1).min()

    # Drawn weights, 32 wide, lose more than trained ones (noise_limits.py).
    assert 0.95 < smallest["none"] < 1 - 1e-5
    assert smallest["inputs and weights"] > 1 - 1e-5


def test_only_products_read_rounded_inputs(unusual: Path, tmp_path: Path) -> None:
    """A residual connection that adds a rounded state would lose what no residual of a product brings back."""
    checkpoint = open_checkpoint(str(unusual))
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    model = trace(checkpoint, tmp_path, sentence_embedding=False)
    graph = next(quantize_plain(model, tokenizer.encode(["hello world"]), tokenizer))[0].graph
    makers = {name: node for node in graph.node for name in node.output}
    rounded = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and makers.get(node.input[0], node).op_type == "QuantizeLinear"
    }
    assert rounded
    assert {node.op_type for node in graph.node if rounded & set(node.input)} == {"MatMul"}


@pytest.mark.parametrize("name", ["modernbert", "qwen3"])
def test_newer_architectures_keep_the_limits_that_ship(bge, name: str, tmp_path: Path) -> None:
    checkpoint = build_modern(name, tmp_path / name)
    done = bge("onnx", checkpoint, "-o", tmp_path / "out", "--quantize", "int8")
    assert done.returncode == 0, done.stdout + done.stderr
    models = json.loads((tmp_path / "out/bge_export.json").read_text("utf-8"))["models"]
    (options,) = [model["options"] for model in models if model["target"] == "onnx-int8"]

    # A faster variant that was refused leaves its reason, and the variant that holds says what it costs.
    assert bool(options.get("refused")) == (options["plain_residuals"] != "none") == (name == "modernbert")
    if name == "modernbert":
        assert "with residuals of its inputs and weights, so slower than the usual one" in done.stdout


@pytest.mark.parametrize("format_name", ["onnx", "openvino"])
def test_the_export_is_proven_and_says_why_it_is_plain(bge, unusual: Path, tmp_path: Path, format_name: str) -> None:
    limits = noise_limits(tmp_path)
    # In the plain arrangement wide channels stay wide: of drawn weights it keeps 0.92.
    limits.write_text(limits.read_text("utf-8").replace('cosine" = 0.95', 'cosine" = 0.88'), "utf-8")
    out = tmp_path / "out"
    done = bge(format_name, unusual, "-o", out, "--quantize", "int8", "--thresholds", limits)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{format_name}-int8: in the plain arrangement" in done.stdout
    assert "the activation is neither GELU by Erf nor ReLU" in done.stdout
    models = json.loads((out / "bge_export.json").read_text("utf-8"))["models"]
    (int8,) = [model for model in models if model["target"] == f"{format_name}-int8"]
    assert "activation" in int8["options"]["plain_arrangement"]


def test_the_fast_arrangement_says_nothing_of_the_plain_one(tiny: Path, tmp_path: Path) -> None:
    export_model(OnnxExporter(), str(tiny), tmp_path / "out", precisions=["int8"], check=False)
    (model,) = json.loads((tmp_path / "out" / "bge_export.json").read_text("utf-8"))["models"]
    assert "plain_arrangement" not in model["options"]


@pytest.mark.parametrize(
    ("options", "name"),
    [(Int8Options(cls_only=True), "--cls-only"), (Int8Options(min_cosine=0.99), "--min-cosine")],
)
def test_what_only_the_fast_arrangement_has_is_refused(
    unusual: Path, tmp_path: Path, options: Int8Options, name: str
) -> None:
    with pytest.raises(UsageError, match=rf"{name} needs an encoder .* activation .*Leave out {name}"):
        export_model(OnnxExporter(int8=options), str(unusual), tmp_path / "out", precisions=["int8"], check=False)
    assert not (tmp_path / "out").exists()
