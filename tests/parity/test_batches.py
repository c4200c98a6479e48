from collections import Counter

import pytest

from bge_export.parity.measure.batches import EVERY_TEXT, LONG_TOKENS, SHAPES, plan_batches

COUNTS = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33, 150, 1000]


def plan(count, longest=512):
    lengths = [3 + (n * 37) % (longest - 2) for n in range(count)]
    return lengths, plan_batches(lengths, [f"tag{n % 40}" for n in range(count)], 512)


@pytest.mark.parametrize("count", COUNTS)
def test_every_text_is_in_at_least_two_shapes(count):
    _, batches = plan(count)
    for shape in EVERY_TEXT:
        assert {text for batch in batches if batch.shape == shape for text in batch.texts} == set(range(count))


@pytest.mark.parametrize("count", COUNTS)
def test_no_batch_holds_a_text_alone(count):
    _, batches = plan(count)
    assert {batch.shape for batch in batches} == set(SHAPES)
    assert {(batch.shape, len(batch.texts)) for batch in batches} == {("4", 4), ("16-sorted", 16), ("8-long", 8)}


def test_every_text_below_the_limit_is_padded_somewhere():
    lengths, batches = plan(150)
    padded = set()
    for batch in batches:
        width = max(batch.length or 0, *(lengths[text] for text in batch.texts))
        padded |= {text for text in batch.texts if lengths[text] < width}
        assert width <= 512
    assert padded >= {text for text, length in enumerate(lengths) if length < 512}


def test_texts_stand_at_different_positions():
    _, batches = plan(150)
    positions = Counter(
        batch.texts.index(text) for batch in batches if batch.shape == "8-long" for text in set(batch.texts)
    )
    longest = Counter(
        position for batch in batches for position, text in enumerate(batch.texts) if batch.shape == "8-long"
    )
    assert len(positions) == len(longest) == 8


def test_the_cost_beside_the_longest_text_is_bounded():
    lengths, batches = plan(1000)
    tokens = sum(len(batch.texts) * max(lengths) for batch in batches if batch.shape == "8-long")
    assert tokens <= LONG_TOKENS
    beside = {text for batch in batches if batch.shape == "8-long" for text in batch.texts}
    assert min(range(1000), key=lengths.__getitem__) in beside
    assert len({text % 40 for text in beside}) >= len(beside) - 2  # of as many tags as there is room for


def test_short_texts_are_all_measured_beside_the_longest():
    _, batches = plan(150, longest=40)
    assert {text for batch in batches if batch.shape == "8-long" for text in batch.texts} == set(range(150))


def test_the_plan_is_the_same_every_time():
    assert plan(150) == plan(150)


def test_no_texts_need_no_batches():
    assert plan_batches([], [], 512) == ()
