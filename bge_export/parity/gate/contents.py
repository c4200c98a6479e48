"""Refusals about what the model files of a folder hold, as `bundle.contents` reads them; a report has no say in it."""

import posixpath
from collections.abc import Iterator

from bge_export.bundle.contents import Contents, differences, read_contents
from bge_export.bundle.integrity import is_shared
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError
from bge_export.parity.gate.verdict import Failure, failure


def content_failures(artifact: Artifact) -> Iterator[Failure]:
    """Yield the refusals of one artifact."""
    try:
        found = read_contents(artifact)
    except ArtifactError as error:
        yield failure("other-content", str(error), "a model file", lane=str(artifact.target))
        return

    if found is not None:
        yield from _file_failures(artifact, found)
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
