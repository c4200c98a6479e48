"""Rounding to 4 bits: the grid holds what is written, and errors are made up for where inputs go together."""

import numpy as np
import pytest

from bge_export.precision.graphs.gptq import LEVELS, round_weight

RANDOM = np.random.default_rng(0)
MIXED = RANDOM.standard_normal((500, 16)).astype(np.float32) @ RANDOM.standard_normal((16, 64)).astype(np.float32)


def moments(inputs: np.ndarray) -> np.ndarray:
    return inputs.T @ inputs / np.float32(len(inputs))


@pytest.fixture
def weight() -> np.ndarray:
    return RANDOM.standard_normal((64, 48)).astype(np.float32)


def test_codes_are_of_four_bits_and_give_the_weight_to_half_a_step(weight: np.ndarray) -> None:
    blocks = round_weight(weight, np.eye(64, dtype=np.float32), 32)
    assert blocks.codes.shape == (64, 48)
    assert blocks.scales.shape == blocks.zeros.shape == (2, 48)
    assert blocks.codes.max() <= LEVELS
    assert blocks.zeros.max() <= LEVELS
    assert np.abs(blocks.values() - weight).mean() < blocks.scales.mean() / 2


def test_products_change_less_than_by_rounding_each_weight_by_itself(weight: np.ndarray) -> None:
    errors = {}
    for name, given in (("gptq", moments(MIXED)), ("alone", np.diag(np.diag(moments(MIXED))))):
        rounded = round_weight(weight, given, 32).values()
        errors[name] = np.square(MIXED @ (rounded - weight)).mean()
    assert errors["gptq"] < errors["alone"] / 2


@pytest.mark.parametrize("row", [0.0, 3.0, -3.0])
def test_constant_and_empty_blocks_are_exact(row: float) -> None:
    weight = np.full((32, 2), row, np.float32)
    np.testing.assert_allclose(round_weight(weight, np.eye(32, dtype=np.float32), 32).values(), weight, atol=1e-6)


def test_inputs_that_no_text_had_are_rounded_too(weight: np.ndarray) -> None:
    blocks = round_weight(weight, np.zeros((64, 64), np.float32), 32)
    assert np.isfinite(blocks.values()).all()
    assert np.abs(blocks.values() - weight).max() < 1
