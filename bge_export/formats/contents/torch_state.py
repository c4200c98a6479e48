"""Finds what TorchScript code writes to beyond its call: attributes, buffers and constants, whose values then stay.

Attributes may be written by name, or by operators that change a value in place. Every value counts as kept that may
come from an attribute, an argument or a constant of the archive, directly or by other names and views of it.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator

from bge_export.formats.contents import STATE


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEUTRAL = _words(
    "torch ops annotate unchecked_cast uninitialized int float bool str Tensor List "
    "Dict Tuple Optional inf nan infj nanj"
)
"""Names of the language, which hold no value of the archive."""

FRESH = _words(
    "add bmm clone cumsum div embedding gelu layer_norm linear matmul mul neg "
    "ones_like relu rsub softmax sub sum tanh where zeros_like"
)
"""Operators of torch whose result is always new memory, whatever their arguments are."""

WRITES = _words(
    "Delete __iadd__ __iand__ __idiv__ __ilshift__ __imul__ __ior__ __irshift__ __isub__ "
    "__ixor__ _set_item append clear extend insert pop popitem remove reverse set_data "
    "setdefault sort update"
)
"""Operators that change their first argument though their names do not end in a single underscore."""

STATISTICS = _words(
    "_batch_norm_impl_index _batch_norm_with_update _fused_moving_avg_obs_fq_helper _native_batch_norm_legit "
    "batch_norm batch_norm_update_stats cudnn_batch_norm fused_moving_avg_obs_fake_quant instance_norm "
    "miopen_batch_norm native_batch_norm"
)
"""Operators that can change statistics among their later arguments."""

OUTPUTS = _words(
    "H L LD LU M P Q R S U V Vh X a bin_edges buffer eigenvalues "
    "eigenvectors eigvals eigvecs exponent grad_bias grad_input grad_weight hist indices "
    "info inverse is_target logabsdet mantissa max max_values min min_indices out out0 "
    "out1 out2 out3 out4 out5 out6 output pivots rank reserve residuals result "
    "save_invstd save_mean sign singular_values solution tau total_weight values"
)
"""Names of arguments that operators of torch write their results to."""


def written_state(tree: ast.AST) -> Iterator[str]:
    """Yield what writes to a value that outlives the call: `prim::SetAttr`, or an operator's name and `STATE`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield "prim::SetAttr"

    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            yield from _written_in(function)


def _written_in(function: ast.FunctionDef) -> Iterator[str]:
    nodes = list(ast.walk(function))
    kept = _kept_names(nodes)

    for node in nodes:
        for name, value in _writes(node):
            if any(one in kept for one in _mentioned(value)):
                yield name + STATE


def _kept_names(nodes: list[ast.AST]) -> set[str]:
    """Return the names of a function whose values may outlive a call, followed through all assignments."""
    flows: dict[str, list[list[str]]] = defaultdict(list)
    local: set[str] = set()
    mentioned: set[str] = set()

    for node in nodes:
        mentioned |= {node.id} if isinstance(node, ast.Name) else set()
        for targets, value in _assigned(node):
            names = _names(targets)
            local |= set() if isinstance(node, ast.Call) else set(names)
            for name in _mentioned(value):
                flows[name].append(names)

    arguments = {node.arg for node in nodes if isinstance(node, ast.arg)}
    kept = (mentioned - local - NEUTRAL) | arguments
    waiting = list(kept)
    while waiting:
        for names in flows.pop(waiting.pop(), []):
            waiting += set(names) - kept
            kept.update(names)

    return kept


def _assigned(node: ast.AST) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    """Yield targets and the value that they take; what is written into a value is taken by its names."""
    if isinstance(node, ast.Assign):
        yield node.targets, node.value
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
        yield [node.target], node.value
    elif isinstance(node, ast.For | ast.comprehension):
        yield [node.target], node.iter
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield [node.optional_vars], node.context_expr
    elif isinstance(node, ast.Call) and not _is_arithmetic(node):
        for _, value in _writes(node):
            yield [value], node


def _writes(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the operator and the value that a node changes in place."""
    if isinstance(node, ast.AugAssign):
        yield "aten::augmented assignment", node.target
    elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield "aten::_set_item", node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = node.func.attr
        for value in _changed(node, node.func):
            yield f"aten::{name}", value


def _changed(node: ast.Call, function: ast.Attribute) -> Iterator[ast.expr]:
    """Yield the arguments that a call changes; the value before the point is the first one of a method."""
    name = function.attr
    keywords = [one.value for one in node.keywords]
    given = [function.value, *node.args] if not _is_library(function) else node.args

    if name in STATISTICS:
        yield from [*given, *keywords]
    elif name in WRITES or (name.endswith("_") and not name.endswith("__")):
        yield from given[:1] or keywords

    yield from (one.value for one in node.keywords if one.arg is None or one.arg in OUTPUTS)


def _is_library(function: ast.Attribute) -> bool:
    """Return whether a name is one of `torch` or `ops`, and not a method of a value."""
    root: ast.expr = function
    while isinstance(root, ast.Attribute):
        root = root.value

    return isinstance(root, ast.Name) and root.id in ("torch", "ops")


def _mentioned(value: ast.expr) -> set[str]:
    """Return the names that a value may share memory with, without those within operators that give new memory."""
    names: set[str] = set()
    waiting: list[ast.AST] = [value]

    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Call) and _is_arithmetic(node):
            waiting += [written for _, written in _writes(node)]
        elif not _is_fresh(node):
            waiting += ast.iter_child_nodes(node)

    return names


def _is_arithmetic(node: ast.Call) -> bool:
    """Return whether a call changes values in place without sharing the memory of its other arguments."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    return name.endswith("_") and not name.endswith("__") and name != "set_"


def _is_fresh(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in FRESH
        and not any(one.arg is None or one.arg in OUTPUTS for one in node.keywords)
    )


def _names(targets: list[ast.expr]) -> list[str]:
    names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return [name for name in names if name not in ("torch", "ops")]
