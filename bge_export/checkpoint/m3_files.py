"""Reads BGE-M3's sparse and multi-vector head: two linear layers, which FlagEmbedding saves beside the encoder."""

from collections.abc import Mapping
from pathlib import Path

from bge_export.checkpoint.head_files import OwnHeads, layer_width
from bge_export.checkpoint.pooling_files import MODULES, PROMPTS, SentenceFiles
from bge_export.checkpoint.tokenizer_settings import SETTINGS, TOKENIZER
from bge_export.checkpoint.unpickling import HEAD_PICKLES
from bge_export.errors import CheckpointError
from bge_export.files.json_files import read_object, read_object_if_there
from bge_export.files.regular import TOKENIZER_BYTES
from bge_export.heads.multi_vector import MultiVectorHead
from bge_export.heads.sparse import SparseHead

SPARSE_LAYER, VECTOR_LAYER = LAYERS = tuple(f"{Path(name).stem}.safetensors" for name in HEAD_PICKLES)
"""The two layers as safetensors."""

DROPPED = ("cls_token", "eos_token", "pad_token", "unk_token")
"""Special tokens whose weights FlagEmbedding leaves out."""


def has_own_layers(root: Path) -> bool:
    """Return whether one of the two layers lies beside an encoder, as a pickle or as safetensors."""
    return any((root / name).is_file() for name in (*HEAD_PICKLES, *LAYERS))


def heads_of_layers(root: Path, width: int, rows: int) -> OwnHeads:
    """Return the sparse and the multi-vector head.

    Args:
        root: the folder.
        width: D, the width of the token states.
        rows: V, the number of token ids.

    Raises:
        CheckpointError: a layer is missing, is only there as a pickle, or does not fit the encoder.
    """
    there = {path.name for path in root.iterdir()}
    missing = [old for old, new in zip(HEAD_PICKLES, LAYERS, strict=True) if not {old, new} & there]
    if missing:
        raise CheckpointError(
            f"{root} has one of BGE-M3's two heads: {missing[0]} is missing, and FlagEmbedding then draws both at "
            "random. Fetch the file, or add --as embedding for the dense vectors alone."
        )

    if not set(LAYERS) <= there:
        raise CheckpointError(
            f"{root}: {' and '.join(HEAD_PICKLES)} are its sparse and its multi-vector head, as pickles, and loading a "
            "pickle runs whatever code is in it. To have their tensors read in a process of their own, with torch's "
            "weights_only and without network, add --allow-pickle; for the dense vectors alone, --as embedding."
        )

    if layer_width(root, SPARSE_LAYER, "weight", width) != 1:
        raise CheckpointError(f"{root / SPARSE_LAYER} gives a token more than one weight. Fetch the file again.")

    weights = SparseHead("token", rows, _dropped(root))
    vectors = MultiVectorHead(layer_width(root, VECTOR_LAYER, "weight", width), skipped=1, normalize=True)
    return OwnHeads(
        {SparseHead.kind: weights, MultiVectorHead.kind: vectors},
        {SparseHead.kind: (SPARSE_LAYER,), MultiVectorHead.kind: (VECTOR_LAYER,)},
    )


def refuse_other_dense(root: Path, sentence: SentenceFiles) -> None:
    """Raise CheckpointError unless the dense vector beside both heads is FlagEmbedding's: the first state, of norm 1.

    Args:
        root: the folder, for messages.
        sentence: what its sentence-transformers files declare.
    """
    declared = sentence.pooling or "cls"
    if declared != "cls" or not sentence.normalize:
        norm = "" if sentence.normalize else ", not normalised"
        raise CheckpointError(
            f"{root / MODULES} declares the pooling {declared!r}{norm}, and beside BGE-M3's two heads FlagEmbedding "
            "takes the first state, normalised. Correct the files, or add --as embedding for the dense vectors alone."
        )

    more = [f"a module {one.folder}, {one.kind}, after pooling" for one in sentence.modules if one.kind != "normalize"]
    if sentence.truncate_dim is not None:
        more.append(f"truncate_dim {sentence.truncate_dim}")
    if more:
        raise CheckpointError(
            f"{root / (PROMPTS if sentence.truncate_dim else MODULES)} declares {' and '.join(more)}, and beside "
            "BGE-M3's two heads FlagEmbedding takes the whole first state, normalised. Correct the files, or add --as "
            "embedding for the dense vectors alone."
        )


def _dropped(root: Path) -> tuple[int, ...]:
    """Return the ids of the special tokens whose weights are left out, as FlagEmbedding takes them."""
    settings = {**read_object_if_there(root / "special_tokens_map.json"), **read_object_if_there(root / SETTINGS)}
    named = [settings.get(name) for name in DROPPED]
    tokens = [one.get("content") if isinstance(one, dict) else one for one in named]

    ids = _ids(read_object(root / TOKENIZER, TOKENIZER_BYTES))
    found = {ids[token] for token in tokens if isinstance(token, str) and token in ids}
    if not found:
        raise CheckpointError(
            f"{root} names none of {', '.join(DROPPED)}, whose weights are left out. Save its tokenizer again with "
            "transformers (save_pretrained), so that tokenizer_config.json names them."
        )
    return tuple(sorted(found))


def _ids(tokenizer: Mapping[str, object]) -> dict[str, int]:
    """Return token -> id of `tokenizer.json`, of its vocabulary and its added tokens."""
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None

    ids: dict[str, int] = {}
    if isinstance(vocabulary, dict):
        ids |= {token: number for token, number in vocabulary.items() if isinstance(number, int)}
    elif isinstance(vocabulary, list):
        ids |= {str(pair[0]): number for number, pair in enumerate(vocabulary) if isinstance(pair, list) and pair}

    for entry in added if isinstance(added, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("id"), int):
            ids[str(entry.get("content"))] = entry["id"]
    return ids
