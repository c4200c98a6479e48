"""Batches of an encoding: every text once, no batch too large, texts of like length together."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bge_export.loading.batches import TOKENS, plan_batches


@given(st.lists(st.integers(1, 5000), max_size=200), st.integers(1, 40))
def test_every_text_is_in_one_batch_and_no_batch_is_too_large(lengths: list[int], size: int) -> None:
    batches = list(plan_batches(lengths, size))
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))

    for batch in batches:
        longest = max(lengths[number] for number in batch)
        assert 1 <= len(batch) <= size
        assert len(batch) == 1 or len(batch) * longest <= TOKENS


@given(st.lists(st.integers(1, 600), max_size=200))
def test_no_text_is_padded_past_a_longer_one_of_another_batch(lengths: list[int]) -> None:
    ranges = [[lengths[number] for number in batch] for batch in plan_batches(lengths, 8)]
    for earlier, later in pairwise(ranges):
        assert min(earlier) >= max(later)
