"""Loads a checkpoint's torch module and accounts for every weight. The only user of `AutoModel`."""

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, cast

from bge_export.checkpoint.other_models import ENCODER_HALVES
from bge_export.checkpoint.static_folder import STATIC
from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError, MissingLibrary

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

POOLER = "pooler"
"""BERT's tanh head: no sentence embedding uses it, and published checkpoints may omit it. A reranker's score is made of
it."""


UNUSED = frozenset(
    {
        "cls",
        "lm_head",
        "classifier",
        "pre_classifier",
        "qa_outputs",
        "score",
        "predictions",
        "sop_classifier",
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector",
        "generator_predictions",
        "generator_lm_head",
        "discriminator_predictions",
        "lm_predictions",
        "head",
        "decoder",
    }
)
"""First name components of heads that training left beside the encoder; token states do not depend on them."""

COMPUTED = frozenset({"position_ids", "inv_freq"})
"""Last name components of buffers that older versions of transformers stored; every version computes them. So are the
buffers that the model itself has."""

WRAPPERS: Mapping[str, str] = {
    "module.": "torch's DataParallel",
    "_orig_mod.": "torch.compile",
    "0.auto_model.": "the whole list of sentence-transformers' modules",
}
"""Prefix of all tensor names -> what was saved instead of the encoder."""


def load_model(checkpoint: Checkpoint) -> "PreTrainedModel":
    """Return the model in float32 on the CPU, in evaluation mode, with plain (eager) attention.

    It is the encoder; of a reranker, the encoder with its classifier; of SPLADE, the masked language model.

    Raises:
        CheckpointError: an unknown architecture, or weights that are missing, unused, misshapen or not finite.
        MissingLibrary: torch or transformers is not installed.
    """
    try:
        import torch
        from transformers import AutoConfig
        from transformers.utils import logging
    except ImportError as error:
        raise MissingLibrary("torch and transformers", "export", "running a PyTorch checkpoint") from error

    if checkpoint.model_type == STATIC:
        from bge_export.checkpoint.static_model import load_static

        return cast("PreTrainedModel", load_static(checkpoint))

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers' logging is untyped
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    try:
        config = AutoConfig.from_pretrained(checkpoint.root, trust_remote_code=False, local_files_only=True)
        _set_plain_outputs(config)
        model, report = _loader(checkpoint, config).from_pretrained(
            checkpoint.root,
            config=config,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported instead, and rejected below with names and shapes
        )
    except Exception as error:  # every architecture raises kinds of its own
        raise CheckpointError(_explain(checkpoint, error)) from error

    _refuse_incomplete(checkpoint, report)
    _refuse_unused(checkpoint, report, {name for name, _ in model.named_buffers()})
    _refuse_not_finite(checkpoint, model)

    model = model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)

    return model  # type: ignore[no-any-return]  # transformers' factories are untyped


def _loader(checkpoint: Checkpoint, config: "PretrainedConfig") -> Any:  # noqa: ANN401 - transformers' are untyped
    """Return the factory of the model: of T5 and its kin only the encoder embeds texts, as in sentence-transformers."""
    from transformers import (
        AutoModel,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForTextEncoding,
    )

    if checkpoint.spec.is_reranker:
        return AutoModelForSequenceClassification
    if set(checkpoint.spec.heads) == {"sparse"}:  # weights of the whole vocabulary, from a masked language model
        return AutoModelForMaskedLM
    return AutoModelForTextEncoding if config.model_type in ENCODER_HALVES else AutoModel


def _set_plain_outputs(config: "PretrainedConfig") -> None:
    """Set what changes how a model computes or returns its token states, but not the states."""
    config.return_dict = True
    config.use_cache = False
    config.chunk_size_feed_forward = 0


def _explain(checkpoint: Checkpoint, error: Exception) -> str:
    """Return the cause of a failed load in one sentence, without transformers' page of advice."""
    return (
        f"{checkpoint.source}: transformers cannot load it as {checkpoint.model_type!r}: {first_line(error)}. "
        "Check config.json (model_type and sizes) against the weights."
    )


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, without its full stop; its type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else type(error).__name__


def _refuse_incomplete(checkpoint: Checkpoint, report: dict[str, object]) -> None:
    """Raise CheckpointError if transformers would fill some of the weights with random numbers."""
    missing = sorted(name for name in _items(report.get("missing_keys")) if _is_needed(checkpoint, str(name)))
    mismatched = sorted(_items(report.get("mismatched_keys")), key=str)

    if missing and (prefix := _prefix(missing, [str(name) for name in _items(report.get("unexpected_keys"))])):
        raise CheckpointError(
            f"{checkpoint.source}: the names of all weights begin with {prefix!r}, as "
            f"{WRAPPERS.get(prefix, 'a module around the encoder')} saves them. Take it off every name "
            "(safetensors.torch: load_file, save_file), or save the encoder itself with save_pretrained."
        )

    if missing:
        raise CheckpointError(
            f"{checkpoint.source}: the weights lack {len(missing)} tensors that {checkpoint.model_type!r} needs, first "
            f"{missing[0]!r}. Fetch the checkpoint again, or correct config.json."
        )

    if mismatched:
        name, stored, expected = mismatched[0]
        raise CheckpointError(
            f"{checkpoint.source}: {len(mismatched)} tensors have the wrong shape, first {name!r}: {list(stored)}, but "
            f"config.json makes it {list(expected)}. Correct the sizes in config.json."
        )


def _is_needed(checkpoint: Checkpoint, name: str) -> bool:
    """Return whether answers depend on a tensor of the model; no embedding depends on the pooler."""
    return checkpoint.spec.is_reranker or POOLER not in name.split(".")


def _prefix(missing: Sequence[str], unexpected: Sequence[str]) -> str | None:
    """Return the prefix under which the unexpected tensors are all the missing ones; None if there is none."""
    known = set(unexpected)
    candidates = [name.removesuffix(missing[0]) for name in unexpected if name.endswith(missing[0])]
    return next((one for one in candidates if one and all(f"{one}{name}" in known for name in missing)), None)


def _refuse_unused(checkpoint: Checkpoint, report: dict[str, object], buffers: Set[str]) -> None:
    """Raise CheckpointError if transformers would ignore weights, such as layers beyond config.json's count."""
    names = [str(name) for name in _items(report.get("unexpected_keys"))]
    unused = sorted(name for name in names if not _may_be_left_out(name) and not _is_buffer(name, buffers))
    if unused:
        raise CheckpointError(
            f"{checkpoint.source}: the weights hold {len(unused)} tensors that {checkpoint.model_type!r} "
            f"lacks, first {unused[0]!r}: they would silently be left out. Correct config.json (num_hidden_layers, "
            "model_type), or save the checkpoint again without them."
        )


def _may_be_left_out(name: str) -> bool:
    """Return whether an unexpected tensor is a known head or a computed buffer."""
    parts = name.split(".")
    return parts[0] in UNUSED or POOLER in parts or parts[-1] in COMPUTED


def _is_buffer(name: str, buffers: Set[str]) -> bool:
    """Return whether a tensor is a buffer that the model computes, with or without the prefix of a head's model."""
    return name in buffers or name.partition(".")[2] in buffers


def _refuse_not_finite(checkpoint: Checkpoint, model: "PreTrainedModel") -> None:
    """Raise CheckpointError if a weight is NaN or infinite; the corpus might never reach a rarely used weight."""
    import torch

    for name, tensor in model.state_dict().items():
        if _is_needed(checkpoint, name) and not torch.isfinite(tensor).all():
            count = int((~torch.isfinite(tensor)).sum())
            raise CheckpointError(
                f"{checkpoint.source}: the tensor {name!r} holds {count} values that are not finite (NaN or infinity). "
                "Fetch the checkpoint again; if they stay, it was damaged in training or when it was saved."
            )


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, set, tuple)) else []
