"""Refuses, before anything is traced, a checkpoint whose tokenizer files contradict each other.

transformers builds the tokenizers of some classes itself, so its ids can differ from those of `tokenizer.json`, which
every other client reads.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.checkpoint.static_folder import STATIC
from bge_export.checkpoint.tokenizer_files import refuse_large
from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError
from bge_export.files.panics import panics_as_errors
from bge_export.texts.corpus import Corpus, Text
from bge_export.texts.tokens import TextTokenizer, rows_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def refuse_other_tokens(checkpoint: Checkpoint, folder: Path, corpus: Corpus) -> None:
    """Raise CheckpointError if transformers makes other token ids of a text than the `tokenizer.json` of its folder.

    Args:
        checkpoint: the checkpoint.
        folder: where its settings and tokenizer were written.
        corpus: the texts to try.
    """
    from transformers import AutoTokenizer

    # The libraries of static models never ask for special tokens, which their `tokenizer.json` may add; ours does not.
    most = checkpoint.spec.inputs.max_tokens
    source = folder if checkpoint.model_type == STATIC else checkpoint.root
    try:
        refuse_large(checkpoint.root)
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
            given = [_tokens(tokenizer, one, most) for one in corpus.texts]
    except Exception as error:
        raise CheckpointError(f"{checkpoint.source}: transformers cannot use its tokenizer: {error}") from error

    own = rows_of(TextTokenizer.load(folder, most), corpus)
    others = [text for text, ids, wanted in zip(corpus.texts, own, given, strict=True) if ids != wanted]
    if others:
        raise CheckpointError(
            f"{checkpoint.source}: transformers' {type(tokenizer).__name__} makes other token ids of {len(others)} of "
            f"{len(corpus.texts)} texts than tokenizer.json does, first of {others[0].shown!r}. Save the "
            "tokenizer again with the class that it was trained with (save_pretrained), so that both agree."
        )


def _tokens(tokenizer: "PreTrainedTokenizerBase", text: Text, most: int) -> tuple[int, ...]:
    """Return the ids that transformers makes of a text, or of a pair in a batch: alone, it drops an empty side."""
    if text.query is None:
        return tuple(tokenizer(text.text, truncation=True, max_length=most)["input_ids"])
    return tuple(tokenizer([text.query], [text.text], truncation=True, max_length=most)["input_ids"][0])
