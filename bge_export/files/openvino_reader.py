"""OpenVINO models that somebody gives: opened only where the XML and the weights are regular files."""

from pathlib import Path
from typing import Any

import openvino

from bge_export.files.regular import GRAPH_BYTES, refuse_irregular


def load_model(path: Path) -> Any:  # noqa: ANN401 - openvino has no types
    """Return a model; OpenVINO itself refuses one whose weights end outside of their file.

    Raises:
        OSError: a file is missing, is no regular one, or the XML is too large.
        RuntimeError: it is no OpenVINO model.
    """
    refuse_irregular(path, GRAPH_BYTES)
    weights = path.with_suffix(".bin")
    if path.suffix == ".xml" and (weights.exists() or weights.is_symlink()):
        refuse_irregular(weights)
    return openvino.Core().read_model(path)
