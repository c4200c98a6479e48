"""Refuses by name what looks like a text encoder and is another model: adapters, rerankers, classifiers, ColBERT.

Each of them can be run without its own part (the adapter, the head), and then gives embeddings that nobody trained.
"""

from collections.abc import Mapping
from pathlib import Path

from bge_export.checkpoint.pooling_files import SentenceFiles
from bge_export.errors import CheckpointError
from bge_export.files.json_files import read_object

ADAPTER = "adapter_config.json"
HEADS: Mapping[str, str] = {
    "ForSequenceClassification": "a classifier, whose head scores or labels texts",
    "ForTokenClassification": "a classifier of tokens",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForMultipleChoice": "a model that chooses between answers",
}
"""Ending of an architecture's name -> what the model is. Heads of language models are not listed: encoders are
published with them and used without."""

ENCODER_HALVES = frozenset({"mt5", "t5", "t5gemma", "umt5"})
"""Encoder-decoders of which transformers has the encoder alone, which sentence-transformers embeds texts with."""

TOKEN_PROJECTION = "linear.weight"  # noqa: S105 - a tensor
"""The tensor with which ColBERT projects every token's state."""


def refuse_adapter(root: Path) -> None:
    """Raise CheckpointError if a folder holds an adapter, alone or beside weights.

    transformers adds an adapter to the weights wherever peft is installed, and ignores it elsewhere.
    """
    path = root / ADAPTER
    if not path.is_file():
        return

    settings = read_object(path)
    kind = str(settings.get("peft_type") or "peft")
    base = settings.get("base_model_name_or_path")
    of = f" of {base}" if isinstance(base, str) and base else ""
    raise CheckpointError(
        f"{path} belongs to an adapter ({kind}{of}): transformers adds it to the weights where peft is installed, and "
        "nowhere else. Merge it (peft: merge_and_unload, then save_pretrained) and give the merged folder; if it is "
        "not part of this model, delete its files."
    )


def refuse_other_model(
    root: Path, config: Mapping[str, object], sentence: SentenceFiles, shapes: Mapping[str, tuple[int, ...]], width: int
) -> None:
    """Raise CheckpointError if the checkpoint is a reranker, a classifier or a ColBERT model.

    A checkpoint whose sentence-transformers files declare a pooling is an embedding model, whatever head is left in it.

    Args:
        root: the folder, for messages.
        config: `config.json`.
        sentence: the sentence-transformers files.
        shapes: tensor -> shape, for all weights.
        width: D, the width of the token states.
    """
    projection = shapes.get(TOKEN_PROJECTION, ())
    if len(projection) == 2 and projection[1] == width:
        raise CheckpointError(
            f"{root}: the tensor {TOKEN_PROJECTION!r} {list(projection)} projects every token: a ColBERT model, which "
            "has one vector a token and no embedding of a text. Choose an embedding model."
        )

    declared = config.get("architectures")
    names = [str(name) for name in declared] if isinstance(declared, list) else []
    what = next((what for name in names for ending, what in HEADS.items() if name.endswith(ending)), None)
    if what is None or sentence.pooling is not None:
        return

    if names[0].endswith("ForSequenceClassification") and _labels(config, shapes) == 1:
        what = "a reranker, whose head with one label scores pairs of texts"

    raise CheckpointError(
        f"{root / 'config.json'} declares {names[0]}: {what}; without its head the token states are no embedding that "
        "it was trained for. Choose an embedding model."
    )


def _labels(config: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the number of labels; None if nothing says it."""
    labels = config.get("id2label")
    if isinstance(labels, dict):
        return len(labels)

    heads = [shape[0] for name, shape in shapes.items() if name.startswith(("classifier.", "score.")) and shape]
    return min(heads, default=None)
