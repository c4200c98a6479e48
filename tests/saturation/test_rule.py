"""What keeps the rule, against the instruction itself: a product of two neighbours in a saturating 16-bit integer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import artifact_of
from hypothesis import given
from hypothesis import strategies as st

from bge_export.contracts import Target
from bge_export.errors import UsageError
from bge_export.saturation import PairFacts, facts_of, known_facts, pair_facts, saturating_pairs

ACTIVATION = 255
codes = st.integers(-128, 127)


def column(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int8)[:, None]


@given(codes, codes)
def test_a_pair_is_broken_where_the_instruction_saturates(one, other):
    """255 activations are the worst; two neighbours may also saturate by less than both at 255 can tell."""
    sums = [ACTIVATION * one + ACTIVATION * other, ACTIVATION * one, ACTIVATION * other]
    saturates = any(not -32768 <= value <= 32767 for value in sums)
    assert saturating_pairs(column(one, other)) == int(saturates)


def test_pairs_are_rows_2i_and_the_next_and_a_last_row_has_none():
    assert saturating_pairs(column(127, 127, 1, 127)) == 1
    assert saturating_pairs(column(1, 127, 127, 1)) == 0
    assert saturating_pairs(column(0, 0, 127)) == 0
    assert saturating_pairs(np.full((2, 4, 3), 127, dtype=np.int8)) == 12


def test_seven_bits_keep_the_rule_whatever_they_are():
    assert saturating_pairs(np.full((4, 3), 64, dtype=np.int8)) == 0
    assert saturating_pairs(np.full((4, 3), -64, dtype=np.int8)) == 0


@given(codes, codes, st.integers(1, 255))
def test_smaller_inputs_leave_more_to_the_weights(one, other, greatest):
    saturates = any(not -32768 <= greatest * value <= 32767 for value in (one + other, one, other))
    # -128 * 255 in one product is the only case that one weight decides alone
    assert saturating_pairs(column(one, other), greatest) >= int(saturates)
    assert saturating_pairs(column(one, other), 127) == 0 or -128 in (one, other)


def test_facts_name_the_first_weight_that_breaks_it():
    facts = pair_facts(
        [("good", column(1, 1, 1), 255), ("bad", column(100, 100, 90, 90), 255), ("worse", column(*[127] * 6), 255)]
    )
    assert facts == PairFacts(weights=3, pairs=1 + 2 + 3, saturating=5, first="bad", first_saturating=2)
    assert pair_facts([]) == PairFacts(0, 0, 0, None, 0)


def test_formats_without_integers_are_left_out_and_files_that_cannot_be_read_are_not():
    """The fake's file does not exist; where a library is missing, the gate refuses a count that it needs."""
    (facts,) = known_facts([replace(artifact_of(), root=Path("nowhere"))]).values()
    assert (facts.saturating, facts.pairs) == (1, 1)
    assert known_facts([replace(artifact_of(), target=Target("torchscript", "fp32"))]) == {}
    with pytest.raises(UsageError, match="torchscript"):
        facts_of(Path("model.pt"), "torchscript")
