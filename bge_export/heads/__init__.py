"""The kinds of answers that models give: one module each, found by its name. The oracle has its own arithmetic."""

from collections.abc import Mapping
from typing import Any

from bge_export.contracts import Promise, Reads
from bge_export.plugins import find


def promise_of(fields: Mapping[str, Mapping[str, Any]]) -> Promise:
    """Return the promise whose fields these are; the inverse of `dataclasses.asdict`.

    Raises:
        UsageError: there is no head of that kind.
    """
    heads = {kind: find(__name__, kind, "HEAD")(**own) for kind, own in fields["heads"].items()}
    return Promise(Reads(**fields["reads"]), heads)
