"""Writes reference vectors, which stand for the checkpoint on machines without it."""

from pathlib import Path

from bge_export.bundle.integrity import refuse_unknown_output
from bge_export.checkpoint.opening import open_checkpoint, open_encoder
from bge_export.commands.measuring import (
    read_texts,
    run_oracle,
)
from bge_export.commands.turns import in_turn
from bge_export.contracts import Pooling
from bge_export.errors import UsageError
from bge_export.files.single import refuse_path
from bge_export.oracle.vectors import ReferenceVectors


@in_turn
def write_reference(
    model: str,
    out: Path,
    *,
    revision: str | None = None,
    pooling: Pooling | None = None,
    query_prefix: str | None = None,
    dim: int | None = None,
    as_embedding: bool = False,
    allow_pickle: bool = False,
    texts: Path | None = None,
    column: str | None = None,
    threads: int = 1,
) -> ReferenceVectors:
    """Write the oracle's vectors to a new `.npz` file, which replaces the checkpoint as reference on other machines.

    Raises:
        UsageError: an argument cannot be used, or the file exists already.
        MeasurementError: the Hub failed or torch is missing.
    """
    if out.suffix != ".npz":
        raise UsageError(f"{out}: reference vectors are written as .npz. Name the file with that suffix.")
    refuse_path(out, "vectors.npz")
    refuse_unknown_output(out)

    opened = open_encoder if as_embedding else open_checkpoint
    checkpoint = opened(
        model,
        revision=revision,
        pooling=pooling,
        query_prefix=query_prefix,
        dim=dim,
        allow_pickle=allow_pickle,
    )
    corpus = read_texts(texts, column, pairs=checkpoint.spec.is_reranker)
    vectors = run_oracle(checkpoint, corpus, threads, every_id=False)
    vectors.write(out)
    return vectors
