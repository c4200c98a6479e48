"""Token ids as transformers' `AutoTokenizer` makes them of a folder: what its users get, whatever `tokenizer.json` is.

transformers builds the tokenizers of several classes anew, from `tokenizer_config.json` and the vocabulary, so a folder
whose `tokenizer.json` is right can still give other ids to everybody who loads it.
"""

from collections.abc import Sequence
from pathlib import Path

from bge_export.checkpoint.tokenizer_files import refuse_large
from bge_export.errors import ArtifactError
from bge_export.files.panics import panics_as_errors
from bge_export.texts.corpus import Corpus


def other_token_ids(folder: Path, corpus: Corpus, token_ids: Sequence[Sequence[int]]) -> tuple[str, ...] | None:
    """Return the ids of the texts that `AutoTokenizer` turns into other tokens than the checkpoint does.

    Args:
        folder: the folder whose tokenizer files are loaded; its own longest input truncates.
        corpus: N texts.
        token_ids: the checkpoint's, of the same texts.

    Returns:
        The texts' ids in the order of the corpus; None where transformers is not installed, so that nobody looked.

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
            found = [tuple(tokenizer(text.text, truncation=True)["input_ids"]) for text in corpus.texts]
    except Exception as error:
        raise ArtifactError(
            f"{folder}: transformers cannot load or use the tokenizer: {error}. Export the folder again."
        ) from error
    rows = zip(corpus.texts, found, token_ids, strict=True)
    return tuple(text.id for text, ids, wanted in rows if ids != tuple(wanted))
