"""Lists the operators in the source text that a TorchScript archive holds; nothing is run, and torch is not needed.

The archive holds the code of each class as text in a subset of Python: `torch.name(...)` calls an operator of torch's
own (`aten`), `ops.domain.name(...)` another one, and `value.name(...)` one of torch's or a method of the archive.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence

from bge_export.formats.contents import TRAINING
from bge_export.formats.contents.torch_state import written_state

TRAINING_ARGUMENT = {
    "_scaled_dot_product_attention_math": 4, "_scaled_dot_product_cudnn_attention": 5,
    "_scaled_dot_product_efficient_attention": 5, "_scaled_dot_product_flash_attention": 3,
    "_scaled_dot_product_flash_attention_for_cpu": 3, "_scaled_dot_product_fused_attention_overrideable": 4,
    "alpha_dropout": 2, "alpha_dropout_": 2, "dropout": 2, "dropout_": 2, "feature_alpha_dropout": 2,
    "feature_alpha_dropout_": 2, "feature_dropout": 2, "feature_dropout_": 2, "gru": 6, "lstm": 6, "native_dropout": 2,
    "rnn_relu": 6, "rnn_tanh": 6, "rrelu": 3, "rrelu_": 3, "scaled_dot_product_attention": 4,
}  # fmt: skip
"""Operator of torch -> index of the argument that must be false or zero, or values are dropped at random."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
"""What defines a function; the subset of Python has only those of the first kind."""

CONTROL = {
    ast.If: "prim::If",
    ast.IfExp: "prim::If",
    ast.For: "prim::Loop",
    ast.While: "prim::Loop",
    ast.ListComp: "prim::Loop",
    ast.BoolOp: "prim::If",
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

    nodes = list(ast.walk(tree))
    _refuse_inner_functions(nodes)
    names = _assigned(nodes)
    if names & {"torch", "ops"}:
        raise ValueError("its code gives another meaning to torch or ops")

    for node in nodes:
        if type(node) in CONTROL:
            yield CONTROL[type(node)]
        elif isinstance(node, ast.Call):
            yield from _called(node, names)

    yield from written_state(tree)


def _refuse_inner_functions(nodes: Iterable[ast.AST]) -> None:
    """Raise ValueError if a function is defined in another one, which the subset of Python does not know."""
    for node in (one for one in nodes if isinstance(one, FUNCTIONS)):
        inner = (one for child in ast.iter_child_nodes(node) for one in ast.walk(child))
        if not isinstance(node, ast.FunctionDef) or any(isinstance(one, FUNCTIONS) for one in inner):
            raise ValueError("its code defines a function in another one")


def _assigned(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the names of variables and arguments."""
    variables = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return variables | {node.arg for node in nodes if isinstance(node, ast.arg)}


def _called(node: ast.Call, assigned: set[str]) -> Iterator[str]:
    """Yield the operator that a call names, if it names one.

    A method of a value may be an operator of torch's, whatever the archive defines under the same name.
    """
    parts: list[str] = []
    called: ast.expr = node.func
    while isinstance(called, ast.Attribute):
        parts.insert(0, called.attr)
        called = called.value

    root = called.id if isinstance(called, ast.Name) else ""
    if not parts:
        if not root or root in assigned:  # A local name may stand for any operator.
            yield f"unnamed::{root or 'call'}"
    elif root == "torch":
        yield f"aten::{parts[-1]}" + (TRAINING if _trains(node, parts[-1], 0) else "")
    elif root == "ops" and len(parts) > 1:
        yield f"{parts[0]}::{parts[-1]}" + (TRAINING if _trains(node, parts[-1], 0) else "")
    elif parts[-1] != "forward" and (root != "__torch__" or root in assigned):
        yield f"aten::{parts[-1]}" + (TRAINING if _trains(node, parts[-1], 1) else "")


def _trains(node: ast.Call, name: str, before: int) -> bool:
    """Return whether a call can drop values at random: the argument that decides is not a plain false or zero.

    Args:
        node: the call.
        name: the operator.
        before: how many arguments stand before the point: one of a method, none otherwise.
    """
    index = TRAINING_ARGUMENT.get(name)
    if index is None:
        return False

    given = [one.value for one in node.keywords if one.arg in ("train", "training", "dropout_p")]
    decides = [*node.args[index - before : index - before + 1], *given]
    return any(not (isinstance(one, ast.Constant) and not one.value) for one in decides)
