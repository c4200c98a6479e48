"""Loads the linear layers of a head that lie beside the encoder, such as BGE-M3's two and ColBERT's projection."""

from typing import TYPE_CHECKING

from bge_export.contracts import Checkpoint
from bge_export.errors import CheckpointError

if TYPE_CHECKING:
    import torch


def head_layers(checkpoint: Checkpoint, kind: str) -> "list[tuple[torch.Tensor, torch.Tensor | None]]":
    """Return weight [out, in] and bias [out], if there is one, of each layer of a head; float32, in their order.

    Raises:
        CheckpointError: a file holds other tensors, or values that are not finite.
    """
    import torch
    from safetensors.torch import load_file

    layers = []
    for name in checkpoint.head_weights.get(kind, ()):
        path = checkpoint.root / name
        tensors = load_file(path)
        prefix = "linear." if "linear.weight" in tensors else ""
        if unknown := sorted(set(tensors) - {f"{prefix}weight", f"{prefix}bias"}):
            raise CheckpointError(
                f"{path} holds {unknown[0]!r} beside a linear layer, which would be left out. Fetch it again."
            )

        weight, bias = tensors[f"{prefix}weight"].float(), tensors.get(f"{prefix}bias")
        given = [weight] if bias is None else [weight, bias.float()]
        if not all(torch.isfinite(one).all() for one in given):
            raise CheckpointError(f"{path} holds values that are not finite (NaN or infinity). Fetch it again.")
        layers.append((weight, None if bias is None else bias.float()))

    return layers
