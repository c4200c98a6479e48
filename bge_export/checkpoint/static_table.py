"""Reads the tensors of a static embedding, checks that they fit together, and folds them into one row a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.stored_tensors import read_stored
from bge_export.errors import CheckpointError

TABLE = "embedding.weight"
"""The table of a StaticEmbedding."""

EMBEDDINGS, WEIGHTS, MAPPING = "embeddings", "weights", "mapping"
"""model2vec's table, the factor of each token, and the row of each token; without the last, token n has row n."""


@dataclass(frozen=True)
class Table:
    """The tensors of a static model, as they are stored.

    Attributes:
        vectors: [R, D] of any number type.
        weights: the factor of each token, [V]; None without.
        mapping: the row of each token, [V]; None if token n has row n.
        model2vec: whether model2vec named them.
    """

    vectors: NDArray[Any]
    weights: NDArray[Any] | None
    mapping: NDArray[Any] | None
    model2vec: bool

    @property
    def rows(self) -> int:
        """Return V, the number of tokens that have a vector."""
        return len(self.vectors) if self.mapping is None else len(self.mapping)

    @property
    def dim(self) -> int:
        """Return D."""
        return int(self.vectors.shape[1])


def read_table(path: Path) -> Table:
    """Return the tensors of a static model, whose shapes and values fit together.

    Raises:
        CheckpointError: they do not, or there are others.
        MissingLibrary: safetensors is not installed.
    """
    tensors = dict(read_stored(path))
    names = sorted(tensors)
    if names == [TABLE]:
        table = Table(tensors[TABLE], None, None, model2vec=False)
    elif EMBEDDINGS in names and set(names) <= {EMBEDDINGS, WEIGHTS, MAPPING}:
        table = Table(tensors[EMBEDDINGS], tensors.get(WEIGHTS), tensors.get(MAPPING), model2vec=True)
    else:
        raise CheckpointError(
            f"{path} holds the tensors {names}; a static embedding is {TABLE!r} alone, or model2vec's {EMBEDDINGS!r} "
            f"with or without {WEIGHTS!r} and {MAPPING!r}. Fetch the file again."
        )

    _refuse_shapes(path, table)
    _refuse_values(path, tensors, table)
    return table


def _refuse_shapes(path: Path, table: Table) -> None:
    """Raise CheckpointError for tensors that cannot belong to one model."""
    if table.vectors.ndim != 2 or not table.vectors.size:
        raise CheckpointError(
            f"{path}: the table is {list(table.vectors.shape)}, not a vector for each token. Fetch the file again."
        )

    for name, tensor in ((WEIGHTS, table.weights), (MAPPING, table.mapping)):
        if tensor is not None and tensor.shape != (table.rows,):
            raise CheckpointError(
                f"{path}: {name!r} is {list(tensor.shape)}, where {table.rows} tokens need one number each. Fetch the "
                "file again."
            )


def _refuse_values(path: Path, tensors: Mapping[str, NDArray[Any]], table: Table) -> None:
    """Raise CheckpointError for values that are not finite, and for tokens without a row."""
    broken = next((name for name in sorted(tensors) if not _finite(tensors[name])), None)
    if broken is not None:
        raise CheckpointError(f"{path}: the tensor {broken!r} holds values that are not finite. Fetch the file again.")

    mapping = table.mapping
    if mapping is not None and not mapping.size:
        raise CheckpointError(f"{path}: {MAPPING!r} is empty, so no token has a row. Fetch the file again.")
    if mapping is not None and (
        mapping.dtype.kind not in "iu" or mapping.min() < 0 or mapping.max() >= len(table.vectors)
    ):
        raise CheckpointError(
            f"{path}: {MAPPING!r} names rows from {mapping.min()} to {mapping.max()} of a table that has "
            f"{len(table.vectors)}. Fetch the file again."
        )

    # Each number may be finite as it is stored, and too large for float32, or its product with the weight.
    with np.errstate(over="ignore"):
        if not _finite(folded(table, dropped=None)):
            raise CheckpointError(f"{path}: its rows are not finite in float32. Fetch the file again.")


def _finite(tensor: NDArray[Any]) -> bool:
    return tensor.dtype.kind != "f" or bool(np.isfinite(tensor).all())


def folded(table: Table, *, dropped: int | None) -> NDArray[np.float32]:
    """Return one row a token, [V, D] float32, as both libraries compute it; that of a dropped token is zero."""
    rows = table.vectors.astype(np.float32)
    if table.mapping is not None:
        rows = rows[table.mapping]
    if table.weights is not None:
        rows = rows * table.weights.astype(np.float32)[:, None]
    if dropped is not None:
        rows = rows.copy()
        rows[dropped] = 0.0
    return np.ascontiguousarray(rows)
