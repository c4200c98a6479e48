"""What the checkpoint does to a pooled vector, in eager torch: its own modules after pooling, read here once more.

`heads.layers` is not used: of the spec only the width and the last division by the norm are read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.contracts import Checkpoint
from bge_export.heads.dense import dense_head

if TYPE_CHECKING:
    import torch

    Step = Callable[[torch.Tensor], torch.Tensor]


class Following:
    """The steps from a pooled vector [D'] to the embedding [D], in float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read the modules of a checkpoint that was opened, which checks that they are known and whole."""
        head = dense_head(checkpoint.spec)
        self._steps = _steps(checkpoint.root)
        self._dim = head.dim
        self._divides = head.normalize

    def embedding(self, pooled: "torch.Tensor") -> "torch.Tensor":
        """Return the embedding [D] of a pooled vector [D']."""
        vector = self.undivided(pooled)
        return _unit(vector) if self._divides else vector

    def undivided(self, pooled: "torch.Tensor") -> "torch.Tensor":
        """Return the embedding [D] before it is divided by its norm at last."""
        for step in self._steps:
            pooled = step(pooled)
        return pooled[: self._dim]


def _steps(root: Path) -> "Sequence[Step]":
    """Return the modules after pooling, without divisions by the norm at their end."""
    path = root / "modules.json"
    if not path.is_file():
        return ()

    entries = json.loads(path.read_text("utf-8"))
    names = [str(entry["type"]).rpartition(".")[2] for entry in entries]
    while names and names[-1] == "Normalize":
        names.pop()

    # Truncation in an exported folder is a Dense module by its type, and its matrix does the same.
    makers: Mapping[str, Callable[[Path], Step]] = {
        "Dense": _dense,
        "LayerNorm": _layer_norm,
        "Normalize": lambda _: _unit,
    }
    following = zip(names[2:], entries[2 : len(names)], strict=True)
    return [makers[name](root / entry["path"]) for name, entry in following]


def _unit(vector: "torch.Tensor") -> "torch.Tensor":
    import torch

    norm = torch.linalg.vector_norm(vector)
    unit: torch.Tensor = vector / norm if norm > 0 else vector
    return unit


def _dense(folder: Path) -> "Step":
    import torch
    from safetensors.torch import load_file

    declared = json.loads((folder / "config.json").read_text("utf-8")).get("activation_function", "Tanh")
    activation: torch.nn.Module = getattr(torch.nn, str(declared).rpartition(".")[2])()
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}

    def step(vector: "torch.Tensor") -> "torch.Tensor":
        product = torch.mv(weights["linear.weight"], vector)
        shifted = product + weights["linear.bias"] if "linear.bias" in weights else product
        return activation(shifted)  # type: ignore[no-any-return]  # modules are untyped

    return step


def _layer_norm(folder: Path) -> "Step":
    import torch
    from safetensors.torch import load_file

    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}

    def step(vector: "torch.Tensor") -> "torch.Tensor":
        variance, mean = torch.var_mean(vector, correction=0)
        scaled: torch.Tensor = (vector - mean) / torch.sqrt(variance + 1e-5) * weights["norm.weight"]
        return scaled + weights["norm.bias"]

    return step
