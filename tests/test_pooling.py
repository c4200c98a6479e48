import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from bge_export.contracts import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING, InputSpec, ModelSpec
from bge_export.errors import UsageError
from bge_export.heads import spec_of
from bge_export.heads.dense import DenseHead, normalize
from bge_export.oracle.pooling import pooled

STATES = np.asarray([[[3, 4], [1, 0], [9, 9]], [[0, 2], [2, 2], [4, 2]]], dtype=np.float32)
MASK = np.asarray([[1, 1, 0], [1, 1, 1]], dtype=np.int64)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", [[3, 4], [0, 2]]),
        ("mean", [[2, 2], [2, 2]]),
        ("last", [[1, 0], [4, 2]]),
        ("max", [[3, 4], [4, 2]]),
        ("mean_sqrt_len", [[4 / 2**0.5, 4 / 2**0.5], [6 / 3**0.5, 6 / 3**0.5]]),
        ("weightedmean", [[5 / 3, 4 / 3], [16 / 6, 12 / 6]]),
    ],
)
def test_each_pooling_ignores_padding(pooling, expected) -> None:
    head = DenseHead(2, pooling, normalize=False)
    rows = head.rows({LAST_HIDDEN_STATE: STATES}, MASK)[LAST_HIDDEN_STATE]
    np.testing.assert_allclose(rows, np.asarray(expected, dtype=np.float32), rtol=1e-6)

    in_torch = head.module()(torch.from_numpy(STATES), torch.from_numpy(MASK))
    np.testing.assert_allclose(in_torch.numpy(), rows, rtol=1e-6)

    # Padding on the other side changes nothing.
    turned = head.rows({LAST_HIDDEN_STATE: np.roll(STATES, 1, axis=1)}, np.roll(MASK, 1, axis=1))[LAST_HIDDEN_STATE]
    if pooling != "cls":
        np.testing.assert_allclose(turned[0], rows[0], rtol=1e-6)
    alone = pooled(torch.from_numpy(STATES[0, :2]), pooling).numpy()
    np.testing.assert_allclose(alone, rows[0], rtol=1e-6)


def test_an_embedding_that_the_graph_pooled_is_left_as_it_is() -> None:
    rows = np.asarray([[3, 4]], dtype=np.float32)
    given = DenseHead(2, "cls", normalize=True).rows({SENTENCE_EMBEDDING: rows}, MASK[:1])
    np.testing.assert_array_equal(given[SENTENCE_EMBEDDING], rows)


def test_the_fields_of_a_promise_give_it_back() -> None:
    spec = ModelSpec(InputSpec(8, {"query": "q: "}), {"dense": DenseHead(2, "last", normalize=False)})
    assert spec_of(json.loads(json.dumps(asdict(spec)))) == spec


def test_a_head_that_does_not_exist_is_named() -> None:
    with pytest.raises(UsageError, match="no 'lexical' among the heads: dense"):
        spec_of({"inputs": {"max_tokens": 8, "prompts": {}}, "heads": {"lexical": {}}})


def test_normalising_gives_unit_rows_in_float32() -> None:
    rows = DenseHead(2, "cls", normalize=True).rows({LAST_HIDDEN_STATE: STATES}, MASK)[LAST_HIDDEN_STATE]
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_zero_row_stays_zero_and_a_non_finite_row_stays_non_finite() -> None:
    rows = normalize(np.asarray([[0, 0], [np.nan, 1], [np.inf, 1], [3, 4]], dtype=np.float32))
    assert rows[0].tolist() == [0, 0]
    assert not np.isfinite(rows[1]).all()
    assert not np.isfinite(rows[2]).all()
    assert rows[3].tolist() == pytest.approx([0.6, 0.8])
