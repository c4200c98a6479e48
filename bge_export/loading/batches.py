"""Plans the batches of an encoding: texts of like length together, and few of those that are long."""

from collections.abc import Iterator, Sequence

TOKENS = 4096
"""The largest number of tokens of a batch, padding included. Larger batches are no faster on CPUs."""

WINDOW = 16_384
"""The number of texts that are tokenised and sorted at once, so that memory does not grow with their number."""


def plan_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield the indices of each batch; every text is in one. The longest come first, where memory is needed most.

    Args:
        lengths: the number of tokens of each text.
        batch_size: the largest number of texts of a batch.
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        longest = lengths[batch[0]] if batch else lengths[number]
        if batch and (len(batch) == batch_size or (len(batch) + 1) * longest > TOKENS):
            yield batch
            batch = []
        batch.append(number)

    if batch:
        yield batch
