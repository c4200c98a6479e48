"""Refuses a checkpoint whose vectors depend on the texts before.

BigBird, for one, changes its attention for good after one short text. Whatever a model keeps from one text to the next
is an attribute or a buffer of its modules.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bge_export.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn


def settings_of(model: "nn.Module") -> Mapping[str, object]:
    """Return the class, the plain attributes and the digests of the buffers of every module, by name."""
    found: dict[str, object] = {}
    for path, module in model.named_modules():
        found[path or "model"] = type(module).__name__
        plain = {key: value for key, value in vars(module).items() if isinstance(value, (bool, int, float, str))}
        found |= {f"{path}.{key}".lstrip("."): value for key, value in plain.items()}

    for path, buffer in model.named_buffers():
        found[path] = hashlib.sha256(buffer.numpy().tobytes()).hexdigest()
    return found


def refuse_changed(source: str, before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Raise CheckpointError if embedding texts changed the model.

    Args:
        source: the checkpoint's name.
        before: `settings_of` the model before the first text.
        after: the same after the last text.
    """
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise CheckpointError(
            f"{source}: its vectors depend on the texts before: embedding changed {changed[0]!r} of the model, and "
            f"{len(changed) - 1} more. An exported graph cannot follow that. Choose a checkpoint without such a state "
            "(for BigBird, attention_type: original_full in config.json)."
        )
