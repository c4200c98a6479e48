"""Refusals about what the model files of a folder hold, as `formats.contents` reads them; a report has no say in it."""

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping

from bge_export.bundle.integrity import is_shared
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError
from bge_export.formats import read_contents
from bge_export.formats.contents import Contents
from bge_export.formats.torchscript import ELAND_FILE, PLAIN_FILE
from bge_export.parity.gate.operators import listed_failures
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.measure.operators import listed
from bge_export.precision import find_precision, model_files, precision_names

FLOATS = ("float64", "float32", "float16", "bfloat16")
WEIGHTS = (*FLOATS, "int8", "uint8")
"""Types that weights may have; other integers are indices, sizes and biases."""


def content_failures(artifact: Artifact) -> Iterator[Failure]:
    """Yield the refusals of one artifact."""
    try:
        found = read_contents(artifact)
    except ArtifactError as error:
        yield failure("other-content", str(error), "a model file", lane=str(artifact.target))
        return

    if found is not None:
        yield from _file_failures(artifact, found)
        yield from listed_failures(str(artifact.target), artifact.model, listed(found.operators))
        for got, needed in differences(artifact, found):
            yield failure("other-content", got, needed, lane=str(artifact.target))


def _file_failures(artifact: Artifact, found: Contents) -> Iterator[Failure]:
    """Yield a refusal for each file whose weights the model reads but the digest does not cover, and the reverse."""
    folder = posixpath.dirname(artifact.model)
    needed = {posixpath.normpath(posixpath.join(folder, name)) for name in found.files}

    for name in sorted(needed - set(artifact.files)):
        got = f"{artifact.model} has weights in {name}"
        yield failure("other-files", got, "that file in the target's own list", lane=str(artifact.target))

    for name in artifact.files:
        if name not in {artifact.model, *needed} and not is_shared(name):
            got = f"{name} is listed, but {artifact.model} does not read it"
            yield failure("other-files", got, "a target of its own for each model", lane=str(artifact.target))


def differences(artifact: Artifact, found: Contents) -> Iterator[tuple[str, str]]:
    """Yield each way in which a file is not of its target: what it holds, and what it must hold."""
    target = str(artifact.target)
    names = (PLAIN_FILE, ELAND_FILE) if artifact.target.format == "torchscript" else (model_files().get(target, ""),)
    if artifact.model not in names:
        yield f"{artifact.model} is called {target}", " or ".join(filter(None, names)) or "a target of bge-export"

    if artifact.target.precision not in precision_names():
        known = ", ".join(precision_names())
        yield f"{artifact.model} has the precision {artifact.target.precision}", f"one of {known}"
        return

    expected = find_precision(artifact.target.precision).holds
    held = weights_of(found, tables=expected.tables)
    if (has := _share(held, expected.holder)) < expected.share:
        yield f"{artifact.model} holds {_shown(held)}", f"at least {expected.share:.0%} in {expected.holder}"

    operator = expected.operators.get(artifact.target.format)
    if operator is not None and found.operators[operator] <= found.idle[operator]:
        yield f"{artifact.model} has no {operator} that works", f"one, since its weights are {expected.holder}"

    floats = Counter({kind: held[kind] for kind in FLOATS})
    if expected.rest is not None and has and _share(floats, expected.rest[0]) < expected.rest[1]:
        kind, least = expected.rest
        yield f"{artifact.model} holds {_shown(held)}", f"at least {least:.0%} of its other floats in {kind}"


def weights_of(found: Contents, *, tables: bool) -> Counter[str]:
    """Return element type or packing operator -> the number of weights.

    Args:
        found: what the file holds.
        tables: whether tables that are read by index count.
    """
    held = Counter({kind: found.weights[kind] - (0 if tables else found.tables[kind]) for kind in WEIGHTS})

    # Two 4-bit weights in a byte: the operators say how many weights these bytes are.
    held["uint8"] = max(0, held["uint8"] - packed_bytes(found))
    return held + found.packed


def packed_bytes(found: Contents) -> int:
    """Return the number of bytes that the weights which operators unpack take at least."""
    return sum(count * int(name.rpartition(" ")[2]) // 8 for name, count in found.packed.items())


def _share(held: Mapping[str, int], holder: str) -> float:
    return held.get(holder, 0) / max(1, sum(held.values()))


def _shown(held: Mapping[str, int]) -> str:
    """Return what holds the weights, largest first, in words."""
    parts = [
        f"{_share(held, name):.1%} of its weights in {name}" for name, count in Counter(held).most_common(3) if count
    ]
    return ", ".join(parts) or "no weights"
