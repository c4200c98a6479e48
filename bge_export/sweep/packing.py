"""How answers of several heads lie side by side in the arrays of a reference: columns of a token, columns of a text."""

from bge_export.contracts import ModelSpec
from bge_export.heads.multi_vector import MultiVectorHead
from bge_export.heads.sparse import SparseHead


def token_columns(spec: ModelSpec, kind: str) -> slice:
    """Return the columns that hold what a head gives for one token; none if it gives nothing for a token.

    A token weight stands first, a vector after it. A token that is skipped has a vector of zeros.
    """
    weight = int(_weight_a_token(spec))
    if kind == SparseHead.kind:
        return slice(0, weight)

    vectors = spec.heads.get(MultiVectorHead.kind)
    width = vectors.dim if isinstance(vectors, MultiVectorHead) else 0
    return slice(weight, weight + width) if kind == MultiVectorHead.kind else slice(0, 0)


def token_width(spec: ModelSpec) -> int:
    """Return the number of columns of a token."""
    vectors = token_columns(spec, MultiVectorHead.kind)
    return int(vectors.stop)


def text_width(spec: ModelSpec) -> int:
    """Return the number of columns of a text: its dense vector, or the weights of the vocabulary."""
    sparse = spec.heads.get(SparseHead.kind)
    if isinstance(sparse, SparseHead) and sparse.per == "vocabulary":
        return sparse.vocabulary
    dense = spec.heads.get("dense")
    return getattr(dense, "dim", 0)


def text_key(spec: ModelSpec) -> str:
    """Return the name under which a reference holds what stands for a whole text: a pooling, or a kind of head."""
    dense = spec.heads.get("dense")
    return str(getattr(dense, "pooling", None) or next(iter(spec.heads)))


def _weight_a_token(spec: ModelSpec) -> bool:
    sparse = spec.heads.get(SparseHead.kind)
    return isinstance(sparse, SparseHead) and sparse.per == "token"
