"""Reads the modules of sentence-transformers that follow pooling: Dense, LayerNorm and Normalize, and their weights."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bge_export.checkpoint.stored_tensors import read_stored
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object
from bge_export.heads.layers import Activation, Layer, LayerKind, Tensors

WEIGHTS = "model.safetensors"
"""The file of a module's weights, in its folder."""

MODULE_WEIGHTS = re.compile(r"\d+_(?:Dense|LayerNorm|Truncate)/model\.safetensors", re.ASCII)
"""The weights of a module that follows pooling, in a checkpoint or an exported folder."""

ACTIVATIONS: Mapping[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.SiLU": "silu",
}
"""Class of a Dense module's activation -> its name in a spec. sentence-transformers makes it without arguments."""

ACTIVATION_CLASSES: Mapping[Activation, str] = {name: path for path, name in ACTIVATIONS.items()}

KINDS: Mapping[str, LayerKind] = {"Dense": "dense", "LayerNorm": "layernorm", "Normalize": "normalize"}
"""Class of a module -> the kind of its layer."""

VECTOR = "sentence_embedding"
"""What a Dense module reads and gives by default; others work on token states."""


@dataclass(frozen=True)
class Module:
    """One module after pooling.

    Attributes:
        kind: what it does.
        folder: its folder, relative to the checkpoint's.
        reads: the declared width that it reads; None of Normalize, which reads any.
        dim: the declared width that it gives; None of Normalize.
        activation: what a Dense module does at last.
        bias: whether a Dense module declares a bias.
    """

    kind: LayerKind
    folder: str
    reads: int | None = None
    dim: int | None = None
    activation: Activation = "identity"
    bias: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that it reads, relative to the checkpoint's folder."""
        return () if self.kind == "normalize" else (f"{self.folder}/config.json", f"{self.folder}/{WEIGHTS}")


def read_modules(root: Path, entries: Sequence[tuple[str, str]]) -> tuple[Module, ...]:
    """Return the modules after pooling.

    Args:
        root: the folder of the checkpoint.
        entries: class and folder of each, in the order of `modules.json`.

    Raises:
        CheckpointError: a file is missing or malformed, or declares something that no artifact supports.
    """
    return tuple(_module(root, KINDS[name], folder) for name, folder in entries)


def _module(root: Path, kind: LayerKind, folder: str) -> Module:
    if kind == "normalize":
        return Module(kind, folder)

    path = root / folder / "config.json"
    config = read_object(path)
    if not (root / folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"{root / folder / WEIGHTS} is missing: earlier versions of sentence-transformers stored the module's "
            "weights in a pickle, which is not loaded. Save the model again with a current sentence-transformers."
        )

    if kind == "layernorm":
        width = _width(path, config, "dimension")
        return Module(kind, folder, width, width)

    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, VECTOR):
            raise CheckpointError(
                f"{path}: this Dense module does not work on the embedding ({key}: {config[key]!r}), which no exported "
                "graph does. Choose a checkpoint without it."
            )

    return Module(
        kind="truncate" if folder.endswith("_Truncate") else kind,
        folder=folder,
        reads=_width(path, config, "in_features"),
        dim=_width(path, config, "out_features"),
        activation=_activation(path, config.get("activation_function")),
        bias=config.get("bias", True) is not False,
    )


def _width(path: Path, config: Mapping[str, object], key: str) -> int:
    width = positive_integer(config.get(key))
    if width is None:
        raise CheckpointError(f"{path}: {key} is {config.get(key)!r}, not a positive whole number. Correct the file.")
    return width


def _activation(path: Path, declared: object) -> Activation:
    """Return the activation; without one, sentence-transformers takes the hyperbolic tangent."""
    found = ACTIVATIONS.get(str(declared)) if declared is not None else "tanh"
    if found is None:
        known = ", ".join(name.rpartition(".")[2] for name in ACTIVATIONS)
        raise CheckpointError(
            f"{path}: the activation {declared!r} of this Dense module is not one of those that are exported "
            f"({known}). Choose a checkpoint without it."
        )
    return found


def layers_of(root: Path, modules: Sequence[Module], width: int, dim: int | None = None) -> tuple[Layer, ...]:
    """Return what lies between pooling and a last division by the norm.

    Args:
        root: the folder of the checkpoint, for messages.
        modules: the modules after pooling; Normalize modules at their end are left to the head's own division.
        width: D, the width of the token states.
        dim: how many leading components of the vector are kept; None for all.

    Raises:
        CheckpointError: the widths of the modules do not fit together.
    """
    given, layers = width, []
    for module in without_last_division(modules):
        if module.reads not in (None, given):
            raise CheckpointError(
                f"{root / module.folder} reads vectors of {module.reads} dimensions, but what precedes it gives "
                f"{given}. One of them belongs to another model: fetch the checkpoint again."
            )

        layers.append(Layer(module.kind, given, module.dim or given, module.activation))
        given = layers[-1].dim

    if dim is not None and dim < given:
        layers.append(Layer("truncate", given, dim))
    return tuple(layers)


def without_last_division(modules: Sequence[Module]) -> Sequence[Module]:
    """Return the modules without Normalize at their end: two of them do what one does."""
    end = len(modules)
    while end and modules[end - 1].kind == "normalize":
        end -= 1
    return modules[:end]


def read_tensors(root: Path, modules: Sequence[Module], layers: Sequence[Layer]) -> tuple[Tensors, ...]:
    """Return the weights of each layer, in float32; nothing for a layer without weights.

    Args:
        root: the folder of the checkpoint, or of an export.
        modules: its modules after pooling.
        layers: the layers that they are; a last one that truncates need not have a module.

    Raises:
        CheckpointError: a file is damaged, or does not hold what its module declares.
        MissingLibrary: safetensors is not installed.
    """
    known = without_last_division(modules)
    tensors: list[Tensors] = [_tensors(root, module) for module in known]
    return (*tensors, *({} for _ in layers[len(known) :]))


def stored_layer(layer: Layer, tensors: Tensors) -> tuple[Mapping[str, object], bytes]:
    """Return the `config.json` and the weights file of a layer, as sentence-transformers reads its module."""
    from safetensors.numpy import save

    if layer.kind == "layernorm":
        return {"dimension": layer.dim}, save(dict(tensors), metadata={"format": "pt"})

    if layer.kind == "truncate":
        tensors = {"linear.weight": np.eye(layer.dim, layer.reads, dtype=np.float32)}
    config = {
        "in_features": layer.reads,
        "out_features": layer.dim,
        "bias": "linear.bias" in tensors,
        "activation_function": ACTIVATION_CLASSES[layer.activation],
    }
    return config, save(dict(tensors), metadata={"format": "pt"})


def _tensors(root: Path, module: Module) -> Tensors:
    if module.kind == "normalize":
        return {}

    path = root / module.folder / WEIGHTS
    found = {name: tensor.astype(np.float32) for name, tensor in read_stored(path)}
    expected = _shapes(module)
    if {name: tensor.shape for name, tensor in found.items()} != expected:
        shapes = {name: list(tensor.shape) for name, tensor in found.items()}
        raise CheckpointError(
            f"{path} holds {shapes}, but config.json beside it needs "
            f"{ {name: list(shape) for name, shape in expected.items()} }. Fetch the module's files again."
        )

    broken = next((name for name, tensor in found.items() if not np.isfinite(tensor).all()), None)
    if broken is not None:
        raise CheckpointError(f"{path}: the tensor {broken!r} holds values that are not finite. Fetch the file again.")
    if module.kind != "truncate":
        return found

    if not np.array_equal(found["linear.weight"], np.eye(module.dim or 0, module.reads, dtype=np.float32)):
        raise CheckpointError(f"{path} does more than take the first {module.dim} components. Export the folder again.")
    return {}


def _shapes(module: Module) -> dict[str, tuple[int, ...]]:
    """Return tensor -> the shape that the module declares."""
    reads, dim = module.reads or 0, module.dim or 0
    if module.kind == "layernorm":
        return {"norm.weight": (dim,), "norm.bias": (dim,)}
    return {"linear.weight": (dim, reads), **({"linear.bias": (dim,)} if module.bias else {})}
