"""Biases that attention does not need, folded into those that it does: exact, and fewer operators in every format.

A key's bias adds the same number to all scores of a query, which the softmax cancels. The softmax's weights sum to one,
so the value's bias v passes through as it is and becomes W v in the bias of the attention's output. What is added to
the scores afterwards (a mask, MPNet's distances) is not touched. Measured in docs/decisions/0019.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Names:
    """Where an attention module of transformers holds its linear layers, below the module that has them all."""

    key: str
    value: str
    output: str


FAMILIES = (
    Names("self.key", "self.value", "output.dense"),  # BERT, RoBERTa, XLM-RoBERTa
    Names("k_lin", "v_lin", "out_lin"),  # DistilBERT
    Names("attn.k", "attn.v", "attn.o"),  # MPNet
)


def fold_biases(model: nn.Module) -> int:
    """Fold the biases of every attention that is known, in place; return how many there were. Others stay as they are.

    Args:
        model: an encoder whose layers share no modules.
    """
    found = [(module, names) for module in model.modules() for names in FAMILIES if _has(module, names)]
    for module, names in found:
        key, value, output = (_linear(module, path) for path in (names.key, names.value, names.output))
        with torch.no_grad():
            passed = output.weight.double() @ value.bias.double()
            output.bias.copy_(output.bias.double() + passed)
        for linear in (key, value):
            linear.register_parameter("bias", None)
    return len(found)


def _linear(module: nn.Module, path: str) -> nn.Linear:
    found = module.get_submodule(path)
    assert isinstance(found, nn.Linear)  # noqa: S101 - `_has` looked
    return found


def _has(module: nn.Module, names: Names) -> bool:
    """Tell whether a module has all three linear layers, each with a bias."""
    for path in (names.key, names.value, names.output):
        try:
            linear = module.get_submodule(path)
        except AttributeError:
            return False
        if not isinstance(linear, nn.Linear) or linear.bias is None:
            return False
    return True
