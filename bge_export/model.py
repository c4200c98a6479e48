"""A checkpoint's torch module, with every weight accounted for. Sole owner of `AutoModel`."""

from typing import TYPE_CHECKING, Any

from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError, MissingLibrary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POOLER = "pooler"
"""BERT's tanh head: no sentence embedding uses it, and published checkpoints may leave it out."""


def load_model(checkpoint: Checkpoint) -> "PreTrainedModel":
    """Return the encoder in float32 on the CPU, in evaluation mode, with plain (eager) attention.

    Raises:
        CheckpointError: an unknown architecture, or weights that are missing or of the wrong shape.
        MissingLibrary: torch or transformers is not installed.
    """
    try:
        import torch
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging
    except ImportError as error:
        raise MissingLibrary("torch and transformers", "export", "running a PyTorch checkpoint") from error
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers' logging is untyped
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(checkpoint.root, trust_remote_code=False, local_files_only=True)
        model, report = AutoModel.from_pretrained(
            checkpoint.root, config=config, trust_remote_code=False, local_files_only=True, use_safetensors=True,
            dtype=torch.float32, attn_implementation="eager", output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below with names and shapes
        )  # fmt: skip
    except (ValueError, KeyError, RuntimeError, OSError, TypeError) as error:
        raise CheckpointError(_explain(checkpoint, error)) from error
    _refuse_incomplete(checkpoint, report)
    model = model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model  # type: ignore[no-any-return]  # transformers' factories are untyped


def _explain(checkpoint: Checkpoint, error: Exception) -> str:
    """Return what went wrong while loading, in one sentence, without transformers' page of advice."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{checkpoint.source}: transformers cannot load it as {checkpoint.model_type!r}: {first}. "
        "Check config.json (model_type and sizes) against the weights."
    )


def _refuse_incomplete(checkpoint: Checkpoint, report: dict[str, object]) -> None:
    """Refuse a model some of whose weights transformers would fill with random numbers."""
    needed = (name for name in _items(report.get("missing_keys")) if POOLER not in str(name).split("."))
    missing = sorted(needed)
    mismatched = sorted(_items(report.get("mismatched_keys")), key=str)
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


def _items(value: object) -> list[Any]:
    return list(value) if isinstance(value, (list, set, tuple)) else []
