"""Compares a folder's `AutoTokenizer`, which transformers users load, with the token ids of the checkpoint.

For several classes transformers rebuilds the tokenizer from `tokenizer_config.json` and the vocabulary, so a folder
with a correct `tokenizer.json` can still give different ids to everybody who loads it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.checkpoint.tokenizer_files import refuse_large
from bge_export.errors import ArtifactError
from bge_export.files.panics import panics_as_errors
from bge_export.texts.corpus import Corpus, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def other_token_ids(folder: Path, corpus: Corpus, token_ids: Sequence[Sequence[int]]) -> tuple[str, ...] | None:
    """Return the ids of the texts for which `AutoTokenizer` and the checkpoint give different tokens.

    Args:
        folder: the folder whose tokenizer files are loaded; texts are truncated to its own longest input.
        corpus: N texts.
        token_ids: the checkpoint's token ids of the same texts.

    Returns:
        The text ids in corpus order; None if transformers is not installed, so nothing was compared.

    Raises:
        ArtifactError: transformers cannot load the tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        return None

    try:
        refuse_large(folder)
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            found = [_tokens(tokenizer, text) for text in corpus.texts]
    except Exception as error:
        raise ArtifactError(
            f"{folder}: transformers cannot load or use the tokenizer: {error}. Export the folder again."
        ) from error

    rows = zip(corpus.texts, found, token_ids, strict=True)
    return tuple(text.id for text, ids, wanted in rows if ids != tuple(wanted))


def _tokens(tokenizer: "PreTrainedTokenizerBase", text: Text) -> tuple[int, ...]:
    """Return the ids of a text, or of a pair in a batch: transformers drops an empty side of a pair alone."""
    if text.query is None:
        return tuple(tokenizer(text.text, truncation=True)["input_ids"])
    return tuple(tokenizer([text.query], [text.text], truncation=True)["input_ids"][0])
