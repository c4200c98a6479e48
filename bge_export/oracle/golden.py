"""The golden texts of a checkpoint, embedded by the oracle: what `golden.jsonl` of an exported folder holds."""

import numpy as np

from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError
from bge_export.heads.dense import dense_head
from bge_export.oracle.running import Eager
from bge_export.progress import stage
from bge_export.texts.golden import DECIMALS, GoldenRow, golden_texts, write_rows


def golden_rows(run: Eager) -> bytes:
    """Return the content of `golden.jsonl` for a checkpoint.

    Raises:
        CheckpointError: tokenizer or model fails on a text, or a vector is not finite.
    """
    spec = run.checkpoint.spec
    texts = golden_texts(spec.inputs)
    prompts = [spec.inputs.prompts.get(one.use, "") for one in texts]

    with stage(f"golden texts: {run.checkpoint.source}", len(texts)):
        given = [(one.id, prompt + one.text) for one, prompt in zip(texts, prompts, strict=True)]
        token_ids, by_pooling = run.embed(given)

    vectors = by_pooling[dense_head(spec).pooling].astype(np.float64).round(DECIMALS)
    if not np.isfinite(vectors).all():
        number = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise CheckpointError(
            f"{run.checkpoint.source}: its vector of the golden text {texts[number].id!r} is not finite. "
            "Choose another checkpoint."
        )

    return write_rows(
        [
            GoldenRow(
                id=text.id,
                kind=text.kind,
                use=text.use,
                prompt=prompt,
                text=text.text,
                token_ids=list(ids),
                vector=vector.tolist(),
            )
            for text, prompt, ids, vector in zip(texts, prompts, token_ids, vectors, strict=True)
        ]
    )


def golden_of(checkpoint: Checkpoint) -> bytes:
    """Return the content of a checkpoint's `golden.jsonl`, for which it is loaded; empty unless it only embeds.

    Torch is left with one thread: with more it adds up in another order, and the file would depend on their number.

    Raises:
        CheckpointError: weights or tokenizer cannot be loaded, or fail on a text.
        MissingLibrary: torch or transformers is not installed.
    """
    return b"" if not checkpoint.spec.only_dense else golden_rows(Eager.load(checkpoint, threads=1))
