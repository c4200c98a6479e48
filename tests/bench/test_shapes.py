import numpy as np
import pytest

from bge_export.bench.shapes import Shape
from bge_export.errors import UsageError


def test_a_shape_is_read_and_written() -> None:
    assert Shape.parse("8x64") == Shape(8, 64)
    assert str(Shape(8, 64)) == "8x64"


@pytest.mark.parametrize("written", ["1y16", "16", "x16", "1x", "0x16", "1x0", "-1x16", "1x16x2", "1x1.5", ""])
def test_what_is_no_shape_is_named(written: str) -> None:
    with pytest.raises(UsageError, match=f"'{written}' is not a shape.*1x16"):
        Shape.parse(written)


def test_a_batch_is_full_and_within_the_vocabulary() -> None:
    batch = Shape(3, 50).batch(vocabulary=7, seed=0)
    assert batch.input_ids.shape == (3, 50)
    assert {array.dtype for array in (batch.input_ids, batch.attention_mask, batch.token_type_ids)} == {np.dtype("i8")}
    assert set(batch.input_ids.ravel()) == set(range(7))
    assert batch.attention_mask.all()
    assert not batch.token_type_ids.any()


def test_the_seed_makes_the_batch() -> None:
    one, same, other = (Shape(2, 9).batch(1000, seed).input_ids for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
