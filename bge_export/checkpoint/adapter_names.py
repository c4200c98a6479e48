"""Finds the stored tensor that each change of an adapter belongs to, among the names that its base gives them."""

from collections.abc import Mapping
from pathlib import Path

from bge_export.checkpoint.adapter_files import WEIGHTS, Adapter, Change
from bge_export.errors import CheckpointError

POOLER = "pooler"


def changes_by_tensor(root: Path, adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Change]:
    """Return name of a stored tensor -> its change.

    Args:
        root: the adapter's folder, for messages.
        adapter: the adapter.
        shapes: name -> shape of each tensor of the base.

    Raises:
        CheckpointError: a change belongs to no tensor, or two belong to one.
    """
    changes: dict[str, Change] = {}
    for change in adapter.changes:
        if _of_missing_pooler(change, shapes):
            continue

        name = _stored_name(root, change, shapes)
        if name in changes:
            raise CheckpointError(
                f"{root / WEIGHTS} changes {name!r} twice, as {changes[name].module!r} and as {change.module!r}. "
                "Fetch the adapter again."
            )
        changes[name] = change
    return changes


def _of_missing_pooler(change: Change, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether a change is of the pooler, which no embedding uses, of a base that is published without it."""
    return POOLER in change.module.split(".") and not any(POOLER in name.split(".") for name in shapes)


def _stored_name(root: Path, change: Change, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the tensor of the base that a change belongs to: heads and wrappers put prefixes before names."""
    wanted = f"{change.module}.weight"
    names = [name for name in shapes if name == wanted or name.endswith(f".{wanted}") or wanted.endswith(f".{name}")]
    if wanted in names:
        return wanted
    if len(names) != 1:
        raise CheckpointError(
            f"{root / WEIGHTS} changes {change.module!r}, of which the base has {len(names) or 'no'} tensors: it is an "
            "adapter of another model. Give its own base."
        )
    return names[0]
