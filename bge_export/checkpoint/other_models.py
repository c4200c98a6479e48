"""Tells embedding models and rerankers apart, and refuses other models by name: classifiers, ColBERT.

Each of them can be run without its own head, and then gives embeddings that nobody trained.
"""

from collections.abc import Mapping
from pathlib import Path

from bge_export.checkpoint.pooling_files import SentenceFiles
from bge_export.errors import CheckpointError

SEQUENCE = "ForSequenceClassification"
HEADS: Mapping[str, str] = {
    SEQUENCE: "a classifier, whose head scores or labels texts",
    "ForTokenClassification": "a classifier of tokens",
    "ForQuestionAnswering": "a model that marks answers in a text",
    "ForMultipleChoice": "a model that chooses between answers",
    "ForMaskedLM": "a language model that fills in masked words",
    "ForPreTraining": "a language model with the heads of its training",
    "LMHeadModel": "a language model that continues texts",
    "ForCausalLM": "a language model that continues texts",
}
"""Ending of an architecture's name -> what the model is."""

LEFT_OVER: Mapping[str, str] = {
    "classifier": "a classifier or a reranker",
    "pre_classifier": "a classifier or a reranker",
    "score": "a classifier or a reranker",
    "qa_outputs": "a head that marks answers",
}
"""First name component of a tensor -> the head that it is part of."""

LANGUAGE_LEFT_OVER: Mapping[str, str] = dict.fromkeys(
    ("cls", "lm_head", "vocab_transform", "vocab_projector", "generator_predictions", "lm_predictions"),
    "the head of a language model",
)
"""The same of heads that encoders are published with."""

AS_EMBEDDING = "To embed texts with its encoder, without that head, add --as embedding and the pooling (--pooling)."

OF_SPLADE = (
    " If it was trained as a SPLADE, its files lack the module that says so, and sentence-transformers adds it: "
    "SparseEncoder(MODEL).save_pretrained(FOLDER), then export FOLDER."
)
"""What to do with a masked language model whose logits weigh tokens: nothing in its files tells it from any other."""

ENCODER_HALVES = frozenset({"mt5", "t5", "t5gemma", "umt5"})
"""Encoder-decoders of which transformers has the encoder alone, which sentence-transformers embeds texts with."""

TOKEN_PROJECTION = "linear.weight"  # noqa: S105 - a tensor
"""The tensor with which ColBERT projects every token's state."""


def refuse_projection(root: Path, shapes: Mapping[str, tuple[int, ...]], width: int) -> None:
    """Raise CheckpointError if the weights are those of a ColBERT model.

    Args:
        root: the folder, for messages.
        shapes: tensor -> shape, for all weights.
        width: D, the width of the token states.
    """
    projection = shapes.get(TOKEN_PROJECTION, ())
    if len(projection) == 2 and projection[1] == width:
        raise CheckpointError(
            f"{root}: the tensor {TOKEN_PROJECTION!r} {list(projection)} projects every token: a ColBERT model, which "
            "has one vector a token and no embedding of a text. Choose an embedding model."
        )


def is_reranker(
    root: Path, config: Mapping[str, object], sentence: SentenceFiles, shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    """Return whether the checkpoint scores pairs; False if it embeds texts.

    A checkpoint whose sentence-transformers files declare a pooling is an embedding model, whatever head is left in it.
    Else the declared architectures decide, and the weights where they name no head.

    Args:
        root: the folder, for messages.
        config: `config.json`.
        sentence: the sentence-transformers files.
        shapes: tensor -> shape, for all weights.

    Raises:
        CheckpointError: it has another head, or its files disagree about the head.
    """
    declared = config.get("architectures")
    names = [str(name) for name in declared] if isinstance(declared, list) else []
    heads = {name: what for name in names for ending, what in HEADS.items() if name.endswith(ending)}

    if sentence.cross_encoder and not any(name.endswith(SEQUENCE) for name in names):
        raise CheckpointError(
            f"{root} declares a CrossEncoder, a reranker, but config.json names {' and '.join(names) or 'no head'} and "
            f"no *{SEQUENCE}. Correct config.json (architectures), or choose another checkpoint."
        )
    if sentence.pooling is not None:
        return False

    if not heads:
        _refuse_left_over(root, shapes, declared=bool(names))
        return False

    name, what = next(iter(heads.items()))
    labels = _labels(config, shapes)
    if name.endswith(SEQUENCE) and labels == 1:
        _refuse_unlisted_label(root, config)
        return True

    if name.endswith(SEQUENCE) and labels is not None:
        what = f"{what}; it has {labels} labels, and a reranker has one"
    more = OF_SPLADE if name.endswith("ForMaskedLM") else ""
    raise CheckpointError(f"{root / 'config.json'} declares {name}: {what}. {AS_EMBEDDING}{more}")


def _refuse_left_over(root: Path, shapes: Mapping[str, tuple[int, ...]], *, declared: bool) -> None:
    """Raise CheckpointError for the weights of a head that no architecture names.

    Args:
        root: the folder, for messages.
        shapes: tensor -> shape, for all weights.
        declared: whether an architecture is named. Published encoders keep the heads of their language models.
    """
    for name, shape in sorted(shapes.items()):
        part = name.partition(".")[0]
        what = LEFT_OVER.get(part) or (None if declared else LANGUAGE_LEFT_OVER.get(part))
        if what is not None:
            raise CheckpointError(
                f"{root}: the weights hold {name!r} {list(shape)}, part of {what}, which config.json (architectures) "
                f"does not name. Correct config.json. {AS_EMBEDDING}"
            )


def _refuse_unlisted_label(root: Path, config: Mapping[str, object]) -> None:
    """Raise CheckpointError for a reranker that transformers would load with two labels, as it does by default."""
    if not isinstance(config.get("id2label"), dict) and config.get("num_labels") != 1:
        raise CheckpointError(
            f"{root / 'config.json'} lists no label of its reranker, so that transformers would load it with two. Add "
            '"id2label": {"0": "LABEL_0"}.'
        )


def _labels(config: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return the number of labels; None if nothing says it."""
    labels, number = config.get("id2label"), config.get("num_labels")
    if isinstance(labels, dict):
        return len(labels)
    if isinstance(number, int):
        return number

    heads = [shape[0] for name, shape in shapes.items() if name.startswith(("classifier.", "score.")) and shape]
    return min(heads, default=None)
