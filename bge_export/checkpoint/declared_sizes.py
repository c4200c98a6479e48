"""Compares the sizes that `config.json` declares with the weights, before anything is built from them.

transformers builds every layer and table that a configuration names and fills them with random numbers before it looks
at the weights: two billion layers never end. Smaller errors are rejected later, with the tensor's name.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from bge_export.errors import CheckpointError

MOST_LAYERS = 200
"""Always allowed: some models use the weights of one layer many times."""
MOST_LABELS = 10_000
"""Always allowed. Labels need a limit because transformers makes a name for each one."""
MOST_NUMBER = 2_000_000
"""Always allowed for any other number: no encoder has more tokens, positions, heads or labels."""
SPARE_ELEMENTS = 1 << 24
"""How far a table may exceed four times the weights: too little to do harm."""
LAYERS = ("layers", "n_layer", "num_blocks")
LABELS = ("num_labels", "n_labels")
ROWS = ("vocab_size", "max_position_embeddings", "n_positions", "type_vocab_size")
WIDTHS = (
    "hidden_size",
    "intermediate_size",
    "embedding_size",
    "dim",
    "hidden_dim",
    "d_model",
    "n_embd",
    "ffn_dim",
    "n_inner",
)
COUNTED = ("layer", "size", "dim", "embd", "embeddings", "positions", "labels", "heads", "groups", "experts", "d_model")
"""Parts of the names of keys whose numbers determine memory use."""


def refuse_oversized(path: Path, config: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError if `config.json` declares far more than the weights hold.

    Args:
        path: the file, for messages.
        config: its content.
        shapes: tensor -> shape, for all weights.
    """
    sizes = [math.prod(shape) for shape in shapes.values()]
    greatest = max((axis for shape in shapes.values() if math.prod(shape) for axis in shape), default=0)
    numbers = list(_numbers(config))

    for key, number in numbers:
        name = key.rpartition(".")[2]
        most = max(greatest, MOST_NUMBER)
        if name.endswith(LAYERS):
            most = max(len(shapes), MOST_LAYERS)
        elif name in LABELS:
            most = max(greatest, MOST_LABELS)

        if number > most:
            raise CheckpointError(
                f"{path} says {key}: {number}, far more than the weights hold ({len(shapes)} tensors, the longest axis "
                f"{greatest}). Correct config.json, or fetch the checkpoint again."
            )

    width = max((number for key, number in numbers if key in WIDTHS), default=1)
    for key, number in numbers:
        if key in (*ROWS, *WIDTHS) and number * width > 4 * sum(sizes) + SPARE_ELEMENTS:
            raise CheckpointError(
                f"{path} says {key}: {number}; with a width of {width} that makes a table larger than all weights "
                f"({sum(sizes)} numbers). Correct config.json, or fetch the checkpoint again."
            )


def _numbers(config: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield each counted key and its number, including those in nested configurations."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and any(part in key for part in COUNTED):
            yield f"{prefix}{key}", int(value) if math.isfinite(value) else MOST_NUMBER**2
