"""Embed all texts in one session: each text alone, then in batches. Every result of the runtime is validated here.

Validating the results in one module keeps the runtimes small.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bge_export.capabilities import ClientSession
from bge_export.checkpoint.weighted_head import ready_dense
from bge_export.contracts import Artifact, Head, Session, TokenBatch
from bge_export.errors import RuntimeContractError
from bge_export.heads.dense import dense_head
from bge_export.parity.measure.batches import SHAPES, Batch
from bge_export.parity.measure.metrics import agreements, norms
from bge_export.progress import advance

Pad = Callable[[Sequence[Sequence[int]], int | None], TokenBatch]


@dataclass(frozen=True)
class InBatch:
    """One text in one batch: its cosine with the text embedded alone, and its norm; NaN if undefined."""

    cosine: float
    norm: float


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of N texts from one output.

    Attributes:
        alone: [N, D] float32, each text embedded by itself.
        batched: for each text: batch shape -> one entry for every batch of that shape that held the text.
    """

    alone: NDArray[np.float32]
    batched: tuple[Mapping[str, Sequence[InBatch]], ...]


@dataclass(frozen=True)
class NativeResult:
    """Native pipeline of a client on N texts: the token ids of its tokenizer, and its embeddings [N, D] float32."""

    token_ids: tuple[tuple[int, ...], ...]
    rows: NDArray[np.float32]


@dataclass(frozen=True)
class Checked:
    """A session whose every result is validated."""

    session: Session
    artifact: Artifact
    runtime: str

    @cached_property
    def _dense(self) -> Head:
        """Return the dense head with the weights of its layers, read once."""
        return ready_dense(self.artifact.root, self.artifact.spec)

    def _head_of(self, output: str) -> Head:
        """Return the head that reads an output."""
        return self._dense if self.artifact.spec.only_dense else self.artifact.spec.head_of(output)

    def embed(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> [B, …] float32, its head's rows of what the session gives.

        Raises:
            RuntimeContractError: see `outputs`.
        """
        return self.pooled(self.outputs(batch), batch)

    def pooled(
        self, outputs: Mapping[str, NDArray[np.float32]], batch: TokenBatch
    ) -> Mapping[str, NDArray[np.float32]]:
        """Return output -> [B, …] float32, its head's rows of the session's outputs for a batch."""
        mask = batch.attention_mask
        return {name: self._head_of(name).rows({name: given}, mask)[name] for name, given in outputs.items()}

    def outputs(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return what the session gives, as it is: output -> states [B, S, D] or vectors [B, D], float32.

        Raises:
            RuntimeContractError: the runtime did not return every output, with what the head needs for each text.
        """
        given = self.session.run(batch)
        if not isinstance(given, Mapping) or not given or set(given) != set(self.artifact.outputs):
            names = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise self._broken(f"outputs {names}", f"the outputs {sorted(self.artifact.outputs)}")

        for output, values in given.items():
            shapes = self._head_of(output).shapes(output, *batch.input_ids.shape)
            needed = " or ".join(map(str, shapes))
            if not isinstance(values, np.ndarray):
                raise self._broken(f"{output!r} as {type(values).__name__}", f"a float32 array of shape {needed}")
            if values.shape not in shapes or values.dtype != np.float32:
                raise self._broken(
                    f"{output!r} as {values.dtype} of shape {values.shape}", f"float32 of shape {needed}"
                )

        return given

    def native_result(self, texts: Sequence[str]) -> NativeResult | None:
        """Return the result of the client's native pipeline; None if the runtime has no tokenizer.

        Raises:
            RuntimeContractError: the runtime did not return one row of ids and one embedding per text.
        """
        if not isinstance(self.session, ClientSession):
            return None

        ids = self.session.tokenize(texts)
        rows = [self.session.embed_text(text) for text in texts]
        needed = (dense_head(self.artifact.spec).dim,)

        if len(ids) != len(texts):
            raise self._broken(f"the ids of {len(ids)} texts", f"those of {len(texts)}")
        for row in rows:
            if row.shape != needed or row.dtype != np.float32:
                raise self._broken(f"the pipeline's {row.dtype} of shape {row.shape}", f"float32 of shape {needed}")

        return NativeResult(tuple(ids), np.stack(rows))

    def _broken(self, got: str, needed: str) -> RuntimeContractError:
        return RuntimeContractError(
            f"{self.runtime} returned {got} for {self.artifact.model}, but {needed} is needed. Either the file is not "
            f"what its manifest says, or bge_export/runtimes/{self.runtime}.py is wrong."
        )


def embed_texts(
    checked: Checked,
    token_ids: Sequence[Sequence[int]],
    batches: Sequence[Batch],
    pad: Pad,
) -> dict[str, Embeddings]:
    """Embed N texts alone ([1, S]) and in batches; return output -> embeddings. Progress counts `steps(N)`.

    Args:
        checked: the session.
        token_ids: N rows of token ids.
        batches: the batches from `plan_batches`.
        pad: rows of token ids and a length -> padded batch.

    Raises:
        RuntimeContractError: see `Checked.embed`.
    """
    count, outputs, dim = len(token_ids), checked.artifact.outputs, dense_head(checked.artifact.spec).dim

    # Copy the rows: a runtime may reuse its buffer, and comparing a buffer with itself proves nothing.
    alone = {name: np.full((count, dim), np.nan, dtype=np.float32) for name in outputs}
    for text, ids in enumerate(token_ids):
        for name, rows in checked.embed(pad([ids], None)).items():
            alone[name][text] = rows[0]
        advance()

    batched: dict[str, list[dict[str, list[InBatch]]]] = {
        name: [defaultdict(list) for _ in range(count)] for name in outputs
    }
    left = steps(count) - count

    for number, batch in enumerate(batches):
        for name, rows in checked.embed(pad([token_ids[text] for text in batch.texts], batch.length)).items():
            measured = zip(agreements(rows, alone[name][list(batch.texts)]), norms(rows), strict=True)
            for text, (cosine, norm) in zip(batch.texts, measured, strict=True):
                batched[name][text][batch.shape].append(InBatch(float(cosine), float(norm)))

        # The batches share the remaining progress so that the integer parts add up to exactly `left`.
        advance(left * (number + 1) // len(batches) - left * number // len(batches))

    return {name: Embeddings(alone[name], tuple(batched[name])) for name in outputs}


def steps(count: int) -> int:
    """Return the total progress of `embed_texts` for `count` texts: one step alone and one per batch shape."""
    return count * (1 + len(SHAPES))
