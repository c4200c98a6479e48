"""Build the report's row for each text from the embeddings of one lane."""

import math
from collections.abc import Sequence

import numpy as np

from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.measure.embedding import Embeddings, InBatch, NativeResult
from bge_export.parity.measure.metrics import agreements, finite_rows, max_differences, nearest_rows, norms
from bge_export.parity.report import ClientRow, RowParity
from bge_export.texts.corpus import Corpus, Kind


def row_facts(
    corpus: Corpus,
    kinds: Sequence[Kind],
    token_ids: Sequence[Sequence[int]],
    embeddings: Embeddings,
    reference: ReferenceVectors,
    own: NativeResult | None = None,
) -> tuple[RowParity, ...]:
    """Return the facts of N texts in one lane.

    Args:
        corpus: the texts.
        kinds: the kind of each text for this checkpoint (`languages.kinds_for`).
        token_ids: the ids of each text from the artifact's tokenizer.
        embeddings: the embeddings of each text, alone and in batches.
        reference: the oracle's vectors of the same texts.
        own: the result of a client's native pipeline, if the runtime has one.
    """
    rows, truth = embeddings.alone, reference.truth
    finite, length, reference_length = finite_rows(rows), norms(rows), norms(truth)
    clients = [None] * len(corpus.texts) if own is None else _client_rows(own, reference)
    # Zero in a batch agrees with zero alone, which says nothing where the text has another vector.
    directed = (length > 0) | (reference_length == 0)
    cosine, largest, near = agreements(rows, truth), max_differences(rows, truth), nearest_rows(rows, truth)

    return tuple(
        RowParity(
            id=text.id,
            text=text.shown,
            kind=kinds[n],
            tokens=len(token_ids[n]),
            tokens_equal=tuple(token_ids[n]) == tuple(reference.token_ids[n]),
            finite=bool(finite[n]),
            cosine=_number(cosine[n]),
            max_abs=_number(largest[n]),
            norm=_number(length[n]),
            reference_norm=float(reference_length[n]),
            batch_cosine={
                shape: _worst_cosine(seen) if directed[n] else None for shape, seen in embeddings.batched[n].items()
            },
            batch_norm={shape: _worst_norm(seen, length[n]) for shape, seen in embeddings.batched[n].items()},
            nearest=corpus.texts[near.index[n]].id if near.index[n] >= 0 else None,
            nearest_cosine=_number(near.cosine[n]),
            client=clients[n],
        )
        for n, text in enumerate(corpus.texts)
    )


def _client_rows(own: NativeResult, reference: ReferenceVectors) -> list[ClientRow]:
    """Return the facts of N texts that a client tokenized and embedded in its native pipeline."""
    finite, length = finite_rows(own.rows), norms(own.rows)
    cosine = agreements(own.rows, reference.truth)

    return [
        ClientRow(
            tokens=len(ids),
            tokens_equal=ids == tuple(reference.token_ids[n]),
            finite=bool(finite[n]),
            cosine=_number(cosine[n]),
            norm=_number(length[n]),
        )
        for n, ids in enumerate(own.token_ids)
    ]


def _worst_cosine(seen: Sequence[InBatch]) -> float | None:
    """Return the smallest cosine; None if any is undefined (Python's `min` can drop a NaN, `np.min` keeps it)."""
    return _number(np.min([one.cosine for one in seen]))


def _worst_norm(seen: Sequence[InBatch], alone: float) -> float | None:
    """Return the norm that differs most from the norm of the text alone; None if any is undefined."""
    values = [one.norm for one in seen]
    return _number(math.nan if any(map(math.isnan, values)) else max(values, key=lambda norm: abs(norm - alone)))


def _number(value: float | np.floating) -> float | None:
    return float(value) if math.isfinite(value) else None
