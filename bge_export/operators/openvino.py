"""Lists the operators of an OpenVINO model from its XML, with those in bodies of control flow, without openvino."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import ParseError, iterparse

from bge_export.files.regular import GRAPH_BYTES, open_regular


def operators(path: Path) -> Iterator[str]:
    """Yield the operators of a model; those of no opset of OpenVINO's own with the name of theirs.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not XML.
    """
    with open_regular(path, GRAPH_BYTES) as file:
        try:
            # Expat itself limits what entities expand to, and loads none from elsewhere.
            for event, element in iterparse(file, ("start", "end")):  # noqa: S314
                if event == "start" and element.tag == "layer":
                    version, name = element.get("version", ""), element.get("type", "")
                    yield name if version.startswith("opset") else f"{version}::{name}"
                elif event == "end":
                    element.clear()  # the tree of a large model would fill the memory
        except ParseError as error:
            raise ValueError(f"it is not XML: {error}") from error
