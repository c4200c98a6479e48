"""What a user should know of a checkpoint besides its spec, one sentence each."""

from bge_export.contracts import ModelSpec, Side
from bge_export.heads.dense import dense_head


def pickle_note(pickles: tuple[str, ...]) -> tuple[str, ...]:
    """Return where weights came from, in one sentence; nothing if all are safetensors."""
    if not pickles:
        return ()
    return (
        f"Weights came from pickles ({', '.join(pickles)}): a process without network read their tensors, and only "
        "those. The manifest names them.",
    )


def side_note(side: Side, spec: ModelSpec) -> tuple[str, ...]:
    """Return a sentence if the exported folder pads on another side than the checkpoint's tokenizer; else nothing."""
    pooling = dense_head(spec).pooling if spec.only_dense else "cls"
    if side == "right" or pooling == "last":
        return ()
    if spec.has_token_heads:
        return ("The checkpoint's tokenizer pads on the left, the folder's on the right.",)

    answer = "score" if spec.is_reranker else "embedding"
    pooled = "the first token" if pooling == "cls" else "the mean of all tokens"
    return (
        f"The checkpoint's tokenizer pads on the left, the folder's on the right: the {answer} is made of "
        f"{pooled}, and padding before a text moves every token.",
    )


def width_note(spec: ModelSpec) -> tuple[str, ...]:
    """Return what the user should know of a vector that is cut, in one sentence."""
    layers = dense_head(spec).layers if spec.only_dense else ()
    if not layers or layers[-1].kind != "truncate":
        return ()

    again = ", divided by their norm again" if dense_head(spec).normalize else ""
    return (f"The vectors are {layers[-1]} dimensions of the checkpoint's{again}.",)
