"""What lies beside a file that others wrote: whether its tokenizer and its pooling are those of the checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.checkpoint.pooling_files import read_sentence_files
from bge_export.errors import BgeExportError
from bge_export.heads.dense import dense_head
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.texts.corpus import Corpus
from bge_export.texts.tokens import TextTokenizer

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Beside:
    """What a folder says of the files in it.

    Attributes:
        other_tokens: ids of the texts of which its tokenizer makes other tokens; None if there is no tokenizer.
        pooling: the pooling that its files declare; None if they declare none.
        notes: what is not known, or is wrong, one sentence each.
    """

    other_tokens: tuple[str, ...] | None
    pooling: str | None
    notes: tuple[str, ...]


def look_beside(path: Path, corpus: Corpus, reference: ReferenceVectors) -> Beside:
    """Return what the folder of a model file, or the one above it as on the Hub, says of the file."""
    near = path.absolute().parent  # not resolved: in the Hub's cache the file is a link to a folder of contents
    tokenizer = next((one for one in (near, near.parent) if (one / TOKENIZER).is_file()), None)
    tokens, token_notes = _tokens(tokenizer, corpus, reference)

    settings = next((one for one in (near, near.parent) if (one / "modules.json").is_file()), None)
    pooling, pooling_notes = _pooling(settings, reference)
    return Beside(tokens, pooling, (*token_notes, *pooling_notes))


def _tokens(
    folder: Path | None, corpus: Corpus, reference: ReferenceVectors
) -> tuple[tuple[str, ...] | None, Sequence[str]]:
    """Return the texts of which a folder's tokenizer makes other tokens, and what to say about it."""
    if folder is None:
        return None, [f"its tokenizer: no {TOKENIZER} lies beside it, so the checkpoint's own made the tokens"]

    try:
        tokenizer = TextTokenizer.load(folder, reference.spec.inputs.max_tokens)
        found = tokenizer.encode([text.text for text in corpus.texts])
    except BgeExportError as error:
        return None, [f"its tokenizer, which cannot be used: {error}"]

    rows = zip(reference.ids, found, reference.token_ids, strict=True)
    return tuple(name for name, ids, wanted in rows if ids != tuple(wanted)), []


def _pooling(folder: Path | None, reference: ReferenceVectors) -> tuple[str | None, Sequence[str]]:
    """Return the pooling that a folder declares, and what to say about it."""
    wanted = dense_head(reference.spec).pooling
    if folder is None:
        return None, ["how its readers pool: nothing beside it says so, and many take the mean unless they are told"]

    try:
        declared = read_sentence_files(folder).pooling
    except BgeExportError as error:
        return None, [f"how its readers pool: {error}"]

    if declared is None:
        return None, ["how its readers pool: the files beside it name no pooling"]
    return declared, [] if declared == wanted else [f"why the files beside it declare {declared} pooling, not {wanted}"]
