"""Compares what the files of a checkpoint declare: widths, the vocabulary, and the longest input."""

from collections.abc import Mapping
from pathlib import Path

from bge_export.checkpoint.pooling_files import SentenceFiles
from bge_export.checkpoint.tokenizer_files import TokenizerFiles
from bge_export.checkpoint.weight_files import WeightFiles
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer

POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Models that count positions from `pad_token_id + 1`, so that 514 positions hold 512 tokens."""


def compare_widths(root: Path, width: int, sentence: SentenceFiles, weights: WeightFiles) -> None:
    """Raise CheckpointError if pooling files or the token table have another width than `config.json` declares."""
    if sentence.width is not None and sentence.width != width:
        raise CheckpointError(
            f"{root}: the pooling's config.json has the width {sentence.width}, config.json the hidden size {width}. "
            "They must be equal; one of them belongs to another model: fetch the checkpoint again."
        )

    # ALBERT and similar models look tokens up in a narrower table and widen the result.
    if weights.embedding is not None and weights.embedding[1][1] > width:
        name, shape = weights.embedding
        raise CheckpointError(
            f"{root}: the tensor {name!r} is {shape[1]} wide, config.json says {width}. "
            "config.json belongs to another model: fetch the checkpoint again."
        )


def compare_vocabulary(root: Path, tokenizer: TokenizerFiles, weights: WeightFiles) -> None:
    """Raise CheckpointError if the tokenizer has ids for which the token table has no row."""
    if tokenizer.ids is None or weights.embedding is None:
        return

    name, shape = weights.embedding
    if tokenizer.added is not None and tokenizer.added[1] >= shape[0]:
        token, number = tokenizer.added
        raise CheckpointError(
            f"{root}: the added token {token!r} has the id {number}, but {name!r} has only {shape[0]} rows: a text "
            "with it cannot be embedded. Take the token out of the tokenizer's files, or save the model with "
            "resize_token_embeddings."
        )

    if tokenizer.ids > shape[0]:
        raise CheckpointError(
            f"{root}: the tokenizer has {tokenizer.ids} ids, but {name!r} has only {shape[0]} rows. "
            "The tokenizer belongs to another model: fetch the checkpoint again."
        )


def longest_input(root: Path, config: Mapping[str, object], sentence: SentenceFiles, tokenizer: TokenizerFiles) -> int:
    """Return the longest input as sentence-transformers sets it: its own setting, else the tokenizer's.

    Neither can exceed the number of positions.
    """
    positions = positive_integer(config.get("max_position_embeddings"))
    if positions is not None and config["model_type"] in POSITIONS_AFTER_PADDING:
        padding = config.get("pad_token_id", 1)
        positions -= (padding if isinstance(padding, int) else 1) + 1

    declared = sentence.max_seq_length or tokenizer.max_length
    limits = [limit for limit in (declared, positions) if limit is not None]
    if not limits or min(limits) < 3:
        raise CheckpointError(
            f"{root} declares no usable longest input ({limits or 'none'} tokens). Correct max_position_embeddings in "
            "config.json or model_max_length in tokenizer_config.json."
        )

    return min(limits)
