"""Reads OpenVINO models given by the user, only if the XML and the weights are regular files."""

from pathlib import Path

import openvino

from bge_export.files.regular import GRAPH_BYTES, refuse_irregular


def load_model(path: Path) -> openvino.Model:
    """Return a model; OpenVINO itself rejects one whose weights extend beyond their file.

    Raises:
        OSError: a file is missing or not a regular file, or the XML is too large.
        RuntimeError: it is not a valid OpenVINO model.
    """
    refuse_irregular(path, GRAPH_BYTES)
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and (weights.exists() or weights.is_symlink()):
        refuse_irregular(weights)

    return openvino.Core().read_model(path)
