"""Checks that the settings in a bundle, which other libraries read, declare what its manifest promises."""

from collections.abc import Mapping
from pathlib import Path

from bge_export.bundle.integrity import MANIFEST
from bge_export.checkpoint.config_file import CONFIG, hidden_size
from bge_export.checkpoint.head_files import TokenModules, heads_of_modules, read_token_modules
from bge_export.checkpoint.module_files import layers_of
from bge_export.checkpoint.other_models import is_reranker
from bge_export.checkpoint.pooling_files import SentenceFiles, read_sentence_files
from bge_export.contracts import Head, ModelSpec
from bge_export.errors import ArtifactError, CheckpointError
from bge_export.files.json_files import read_object
from bge_export.heads.dense import DenseHead
from bge_export.heads.layers import Layer

WORDS: Mapping[str, str] = {
    "dense": "a vector of a text",
    "sparse": "weights of tokens",
    "multi_vector": "vectors of tokens",
    "score": "scores of pairs",
}
"""Kind of head -> what it gives."""


def refuse_other_spec(root: Path, spec: ModelSpec) -> None:
    """Raise ArtifactError if the settings that consumers read, of pooling or of the head, contradict the manifest."""
    try:
        modules = read_token_modules(root)
        declared = read_sentence_files(root) if modules is None else modules.sentence
        heads = _declared_heads(root, spec, modules, declared)
    except CheckpointError as error:
        raise ArtifactError(f"{error} Export the folder again.") from error

    if heads != dict(spec.heads):
        raise ArtifactError(
            f"{root}: its settings declare {_named(heads)}, but {MANIFEST} promises {_named(spec.heads)}. "
            "Export the folder again."
        )

    dense = spec.heads.get(DenseHead.kind)
    if isinstance(dense, DenseHead):
        _refuse_other_vectors(root, spec, dense, declared)


def _declared_heads(
    root: Path, spec: ModelSpec, modules: TokenModules | None, declared: SentenceFiles
) -> dict[str, Head]:
    """Return the heads that the settings declare, as far as they do: the dense one is compared field by field.

    BGE-M3's own two heads stand in no settings.
    """
    if modules is not None:
        config = read_object(root / CONFIG)
        return dict(heads_of_modules(root, modules, config, hidden_size(root / CONFIG, config)).heads)

    if spec.is_reranker:
        scores = is_reranker(root, read_object(root / CONFIG), declared, {})
    else:
        scores = DenseHead.kind in spec.heads
    return dict(spec.heads) if scores else {}


def _named(heads: Mapping[str, Head]) -> str:
    """Return heads in words, with their fields: they may differ in nothing else."""
    return " and ".join(f"{WORDS[kind]}, {head}" for kind, head in sorted(heads.items())) or "an embedding model"


def _refuse_other_vectors(root: Path, spec: ModelSpec, head: DenseHead, declared: SentenceFiles) -> None:
    """Raise ArtifactError if the pooling files declare another vector of a text than the manifest promises."""
    pairs = {
        "pooling": (declared.pooling, head.pooling),
        "normalisation": (declared.normalize, head.normalize),
        "longest input": (declared.max_seq_length, spec.inputs.max_tokens),
        "width of token states": (declared.width, head.state_dim),
        "layers": (_layers(root, declared), head.layers),
        "prompts": (declared.prompts, spec.inputs.prompts),
    }

    for what, (given, promised) in pairs.items():
        if given != promised:
            raise ArtifactError(
                f"{root}: its pooling files declare the {what} {given!r}, but {MANIFEST} promises {promised!r}: "
                "consumers would compute another embedding. Export the folder again."
            )


def _layers(root: Path, declared: SentenceFiles) -> tuple[Layer, ...]:
    """Return the layers after pooling that a folder's files declare."""
    try:
        return layers_of(root, declared.modules, declared.width or 0, declared.truncate_dim)
    except CheckpointError as error:
        raise ArtifactError(f"{error} Export the folder again.") from error
