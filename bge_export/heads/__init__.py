"""The kinds of answers that models give: one module each, found by its name. The oracle has its own arithmetic."""

from collections.abc import Mapping
from typing import Any

from bge_export.contracts import InputSpec, ModelSpec
from bge_export.plugins import find


def spec_of(fields: Mapping[str, Mapping[str, Any]]) -> ModelSpec:
    """Return the spec whose fields these are; the inverse of `dataclasses.asdict`.

    Raises:
        UsageError: there is no head of that kind.
    """
    heads = {kind: find(__name__, kind, "HEAD")(**own) for kind, own in fields["heads"].items()}
    return ModelSpec(InputSpec(**fields["inputs"]), heads)
