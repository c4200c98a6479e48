"""Lists the operators in the source text that a TorchScript archive holds; nothing is run, and torch is not needed.

The archive holds the code of each class as text in a subset of Python: `torch.name(...)` calls an operator of torch's
own (`aten`), `ops.domain.name(...)` another one.
"""

import ast
from collections.abc import Iterator

from bge_export.formats.contents import TRAINING

TRAINING_ARGUMENT = {
    "alpha_dropout": 2, "alpha_dropout_": 2, "dropout": 2, "dropout_": 2, "feature_alpha_dropout": 2,
    "feature_dropout": 2, "feature_dropout_": 2, "gru": 6, "lstm": 6, "native_dropout": 2, "rnn_relu": 6,
    "rnn_tanh": 6, "rrelu": 3, "rrelu_": 3, "scaled_dot_product_attention": 4,
}  # fmt: skip
"""Operator of torch -> index of the argument that must be false or zero, or values are dropped at random."""

CONTROL = {
    ast.If: "prim::If",
    ast.IfExp: "prim::If",
    ast.For: "prim::Loop",
    ast.While: "prim::Loop",
    ast.ListComp: "prim::Loop",
}


def operators_of(text: str) -> Iterator[str]:
    """Yield the operators of a source text, and control flow as `prim::If` and `prim::Loop`.

    Raises:
        ValueError: it is not of the subset of Python.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, MemoryError, RecursionError) as error:  # the parser's own limits of depth are the latter two
        raise ValueError(f"its code cannot be read: {str(error) or 'it is nested too deep'}") from error

    for node in ast.walk(tree):
        if type(node) in CONTROL:
            yield CONTROL[type(node)]
        elif isinstance(node, ast.Call):
            yield from _called(node)


def _called(node: ast.Call) -> Iterator[str]:
    """Yield the operator that a call names, if it names one."""
    parts: list[str] = []
    called: ast.expr = node.func
    while isinstance(called, ast.Attribute):
        parts.insert(0, called.attr)
        called = called.value

    if not isinstance(called, ast.Name) or not parts:
        return

    if called.id == "torch":
        yield f"aten::{parts[-1]}" + (TRAINING if _trains(node, parts[-1]) else "")
    elif called.id == "ops" and len(parts) > 1:
        yield f"{parts[0]}::{parts[-1]}"


def _trains(node: ast.Call, name: str) -> bool:
    """Return whether a call can drop values at random: the argument that decides is not a plain false or zero."""
    index = TRAINING_ARGUMENT.get(name)
    given = [one.value for one in node.keywords if one.arg in ("train", "training", "dropout_p")]
    if index is None:
        return False

    decides = [*node.args[index : index + 1], *given]
    return any(not (isinstance(one, ast.Constant) and not one.value) for one in decides)
