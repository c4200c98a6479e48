"""The moments that 4-bit weights are rounded with: of tokens by their importance where the graph can be read."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from architectures import HIDDEN, KINDS, Kind, build

from bge_export.calibration.moments import SHARE_OF_ALL, input_moments, second_moments, weighted_moments
from bge_export.calibration.observing import batches
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.encoder.matching import UnknownGraph
from bge_export.encoder.reading import read_encoder
from bge_export.graph.products import constant_products
from bge_export.graph.trace import trace
from bge_export.heads.dense import dense_head
from bge_export.texts.tokens import TextTokenizer

TEXTS = ("hello world", "the dog sleeps in the garden", "a question about the weather")


@pytest.mark.parametrize("kind", KINDS)
def test_only_tokens_that_move_the_embedding_count(kind: Kind, tmp_path: Path) -> None:
    """With CLS pooling, the last feed-forward of all other tokens moves nothing: its moments are of the first alone."""
    checkpoint = open_checkpoint(str(build(kind, tmp_path / kind, "cls")))
    model = trace(checkpoint, tmp_path, sentence_embedding=False)
    encoder = read_encoder(model)
    tokenizer = TextTokenizer.load(checkpoint.root, checkpoint.spec.inputs.max_tokens)
    rows = tokenizer.encode(TEXTS)
    found = weighted_moments(encoder, dense_head(checkpoint.spec), batches(encoder, rows, tokenizer.pad))
    products = [node for node in constant_products(model.graph) if node.input[1] in found]
    assert len(products) == len(found) == 6 * len(encoder.layers)
    plain = second_moments(model, products, rows, tokenizer)
    up = encoder.layers[-1].up.source
    by_importance = found[up] - plain[up] * SHARE_OF_ALL / (1 + SHARE_OF_ALL)
    assert np.linalg.matrix_rank(by_importance, tol=1e-4) == len(TEXTS)
    assert np.linalg.matrix_rank(plain[up], tol=1e-4) > len(TEXTS)
    first = encoder.layers[0].query.source
    assert found[first].shape == plain[first].shape == (HIDDEN, HIDDEN)
    assert 0.3 < np.trace(found[first]) / np.trace(plain[first]) < 3


def test_in_a_graph_that_cannot_be_read_all_tokens_count_alike(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(build("bert", tmp_path / "bert", "cls")))
    model = trace(checkpoint, tmp_path, sentence_embedding=False)
    products = constant_products(model.graph)
    weighted = input_moments(model, products, checkpoint)
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for node in other.graph.node:
        if node.op_type == "Erf":
            node.op_type = "Tanh"
    with pytest.raises(UnknownGraph):
        read_encoder(other)
    plain = input_moments(other, products, checkpoint)
    assert set(plain) == set(weighted) == {node.input[1] for node in products}
    first = products[0].input[1]
    assert not np.allclose(plain[first], weighted[first], rtol=1e-3)
