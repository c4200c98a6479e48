"""Removes the key and value biases of attention exactly, so that every format runs fewer operators.

The key bias adds one constant to all scores of a query, which the softmax cancels. The softmax weights sum to one, so
the value bias v passes through unchanged and becomes W v in the bias of the attention output. Terms added to the scores
afterwards (a mask, MPNet's relative positions) are not affected. Measurements: docs/decisions/0019.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Names:
    """Paths of the linear layers of a transformers attention module, relative to the module that contains them."""

    key: str
    value: str
    output: str


FAMILIES = (
    Names("self.key", "self.value", "output.dense"),  # BERT, RoBERTa, XLM-RoBERTa
    Names("k_lin", "v_lin", "out_lin"),  # DistilBERT
    Names("attn.k", "attn.v", "attn.o"),  # MPNet
)


def fold_biases(model: nn.Module) -> int:
    """Fold the biases of every known attention module in place and return their number; leave other modules unchanged.

    Args:
        model: an encoder whose layers do not share modules.
    """
    found = [(module, names) for module in model.modules() for names in FAMILIES if _has(module, names)]

    for module, names in found:
        key, value, output = (_linear(module, path) for path in (names.key, names.value, names.output))

        # float64, so that only the final bias is rounded.
        with torch.no_grad():
            passed = output.weight.double() @ value.bias.double()
            output.bias.copy_(output.bias.double() + passed)

        for linear in (key, value):
            linear.register_parameter("bias", None)

    return len(found)


def _linear(module: nn.Module, path: str) -> nn.Linear:
    found = module.get_submodule(path)
    assert isinstance(found, nn.Linear)  # noqa: S101 - checked by `_has`
    return found


def _has(module: nn.Module, names: Names) -> bool:
    """Return whether a module contains all three linear layers, each with a bias."""
    for path in (names.key, names.value, names.output):
        try:
            linear = module.get_submodule(path)
        except AttributeError:
            return False

        if not isinstance(linear, nn.Linear) or linear.bias is None:
            return False

    return True
