import numpy as np
import pytest

from bge_export.heads.dense import Dense, normalize

STATES = np.asarray([[[3, 4], [1, 0], [9, 9]], [[0, 2], [2, 2], [4, 2]]], dtype=np.float32)
MASK = np.asarray([[1, 1, 0], [1, 1, 1]], dtype=np.int64)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("cls", [[3, 4], [0, 2]]), ("mean", [[2, 2], [2, 2]]), ("last", [[1, 0], [4, 2]])],
)
def test_each_pooling_ignores_padding(pooling, expected) -> None:
    np.testing.assert_array_equal(
        Dense(2, pooling, normalize=False).rows(STATES, MASK), np.asarray(expected, dtype=np.float32)
    )


def test_normalising_gives_unit_rows_in_float32() -> None:
    rows = Dense(2, "cls", normalize=True).rows(STATES, MASK)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_a_zero_row_stays_zero_and_a_non_finite_row_stays_non_finite() -> None:
    rows = normalize(np.asarray([[0, 0], [np.nan, 1], [np.inf, 1], [3, 4]], dtype=np.float32))
    assert rows[0].tolist() == [0, 0]
    assert not np.isfinite(rows[1]).all()
    assert not np.isfinite(rows[2]).all()
    assert rows[3].tolist() == pytest.approx([0.6, 0.8])
