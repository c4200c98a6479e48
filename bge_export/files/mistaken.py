"""Tells what a file that should be a model is instead, by its first bytes."""

from pathlib import Path

from bge_export.errors import ArtifactError
from bge_export.files.regular import open_regular

READ_BYTES = 512
LFS_POINTER = b"version https://git-lfs"


def refuse_mistaken(path: Path) -> None:
    """Raise ArtifactError if a file is what download tools leave in place of a model.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular(path) as stream:
        start = stream.read(READ_BYTES)

    if not start.strip(b"\0"):
        raise ArtifactError(f"{path} is empty, or begins with nothing but zero bytes. Fetch it again.")
    if start.startswith(LFS_POINTER):
        raise ArtifactError(f"{path} is a Git LFS pointer, not the model. Fetch it with: git lfs pull")
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise ArtifactError(f"{path} is an HTML page, such as a login or error page, not the model. Fetch it again.")
