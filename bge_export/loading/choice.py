"""Chooses the model of a folder that is loaded, and the runtime that opens it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bge_export.capabilities import SelectiveRuntime
from bge_export.contracts import Artifact, Runtime
from bge_export.errors import UsageError
from bge_export.runtimes import find_runtime

RUNTIME_OF: Mapping[str, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torchscript": "torchscript"}
"""Format -> the runtime that it is written for, the lightest first."""

PLAIN = "fp32"
"""The precision that is loaded if none is named: nothing in it is rounded."""


def choose_artifact(
    folder: Path, artifacts: Sequence[Artifact], precision: str | None, runtime: str | None
) -> tuple[Artifact, Runtime]:
    """Return an artifact and the runtime that opens it.

    Args:
        folder: where they lie, for messages.
        artifacts: those of the folder.
        precision: the precision that the user named, if any.
        runtime: the runtime that the user named, if any.

    Raises:
        UsageError: there is no such runtime, nothing that it reads, or no such precision; or the folder has several
            precisions without a plain one, and none was named.
        MissingLibrary: a library that the runtime's module imports is not installed.
    """
    name = runtime or next(
        (own for format_, own in RUNTIME_OF.items() if any(one.target.format == format_ for one in artifacts)), ""
    )
    if not name:
        raise UsageError(f"{folder} holds no model of a known format. Export it again.")

    opener = find_runtime(name)
    readable = [one for one in artifacts if one.target.format in opener.formats]
    if not readable:
        there = ", ".join(sorted({str(one.target) for one in artifacts})) or "no model"
        raise UsageError(f"{name} reads nothing in {folder}, which holds {there}. Name another runtime.")

    # A runtime that reads several formats takes its own first.
    first = sorted(readable, key=lambda one: RUNTIME_OF.get(one.target.format) != name)
    chosen = _of_precision(folder, first, precision)
    if isinstance(opener, SelectiveRuntime) and not opener.reads(chosen, ""):
        raise UsageError(f"{name} does not run {chosen.target}. Name another runtime or precision.")
    return chosen, opener


def _of_precision(folder: Path, artifacts: Sequence[Artifact], precision: str | None) -> Artifact:
    """Return the first artifact of a precision; if none is named, of the plain one or the only one."""
    there = dict.fromkeys(one.target.precision for one in artifacts)
    wanted = precision or (PLAIN if PLAIN in there else None)
    if wanted is None and len(there) == 1:
        wanted = next(iter(there))

    if wanted is None:
        raise UsageError(f"{folder} holds {', '.join(there)}: name one of them as precision.")
    if wanted not in there:
        raise UsageError(f"{folder} holds no {wanted}, only {', '.join(there)}. Name one of them as precision.")
    return next(one for one in artifacts if one.target.precision == wanted)
