"""Writes the golden texts of an export: the checkpoint's vectors, or those that the folder has, if they are right."""

from pathlib import Path

from bge_export.contracts import Checkpoint
from bge_export.files.regular import GOLDEN_BYTES, read_regular
from bge_export.oracle.golden import golden_of
from bge_export.texts.golden import GOLDEN, agree


def write_golden(checkpoint: Checkpoint, staging: Path, out: Path) -> None:
    """Write `golden.jsonl` into a staged folder, unless it is a reranker's; torch is left with one thread.

    Another machine may have computed the vectors of the folder that is extended, and its measurements are of those
    bytes. So a file that agrees with the checkpoint stays as it is.

    Args:
        checkpoint: the checkpoint; it is run on the golden texts.
        staging: the staged folder.
        out: the folder that it will replace or extend, which need not exist.

    Raises:
        CheckpointError: weights or tokenizer cannot be loaded, or fail on a text.
    """
    golden = golden_of(checkpoint)
    if not golden:
        return

    if (out / GOLDEN).is_file():
        try:
            earlier = read_regular(out / GOLDEN, GOLDEN_BYTES)
        except OSError:  # a file that cannot be read is written anew
            earlier = b""
        if agree(earlier, golden):
            golden = earlier

    (staging / GOLDEN).write_bytes(golden)
