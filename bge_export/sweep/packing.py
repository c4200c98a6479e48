"""How answers of several heads lie side by side in the arrays of a reference: columns of a token, columns of a text."""

from bge_export.contracts import Promise
from bge_export.heads.multi_vector import MultiVector
from bge_export.heads.sparse import Sparse


def token_columns(promise: Promise, kind: str) -> slice:
    """Return the columns that hold what a head gives for one token; none if it gives nothing for a token.

    A token weight stands first, a vector after it. A token that is skipped has a vector of zeros.
    """
    weight = int(_weight_a_token(promise))
    if kind == Sparse.kind:
        return slice(0, weight)

    vectors = promise.heads.get(MultiVector.kind)
    width = vectors.dim if isinstance(vectors, MultiVector) else 0
    return slice(weight, weight + width) if kind == MultiVector.kind else slice(0, 0)


def token_width(promise: Promise) -> int:
    """Return the number of columns of a token."""
    vectors = token_columns(promise, MultiVector.kind)
    return int(vectors.stop)


def text_width(promise: Promise) -> int:
    """Return the number of columns of a text: its dense vector, or the weights of the vocabulary."""
    sparse = promise.heads.get(Sparse.kind)
    if isinstance(sparse, Sparse) and sparse.per == "vocabulary":
        return sparse.vocabulary
    dense = promise.heads.get("dense")
    return getattr(dense, "dim", 0)


def text_key(promise: Promise) -> str:
    """Return the name under which a reference holds what stands for a whole text: a pooling, or a kind of head."""
    dense = promise.heads.get("dense")
    return str(getattr(dense, "pooling", None) or next(iter(promise.heads)))


def _weight_a_token(promise: Promise) -> bool:
    sparse = promise.heads.get(Sparse.kind)
    return isinstance(sparse, Sparse) and sparse.per == "token"
