"""The dense head of a checkpoint or of an exported folder, with the weights of the layers that follow pooling."""

from pathlib import Path

from bge_export.checkpoint.module_files import read_tensors
from bge_export.checkpoint.pooling_files import read_sentence_files
from bge_export.contracts import Checkpoint, ModelSpec
from bge_export.heads.dense import DenseHead, dense_head
from bge_export.heads.layers import Tensors


def layer_tensors(checkpoint: Checkpoint) -> tuple[Tensors, ...]:
    """Return the weights of each layer after a checkpoint's pooling.

    Raises:
        CheckpointError: the files of its modules cannot be read.
    """
    return _read(checkpoint.root, dense_head(checkpoint.spec))


def ready_dense(root: Path, spec: ModelSpec) -> DenseHead:
    """Return the dense head of a spec with the weights that a folder holds, as libraries read them there.

    Raises:
        CheckpointError: the files of its modules cannot be read.
        UsageError: the spec is of a model with other heads.
    """
    head = dense_head(spec)
    return head.with_weights(_read(root, head)) if any(layer.weighted for layer in head.layers) else head


def _read(root: Path, head: DenseHead) -> tuple[Tensors, ...]:
    return read_tensors(root, read_sentence_files(root).modules, head.layers) if head.layers else ()
