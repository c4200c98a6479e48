"""The same input gives the same bytes, in one process and in the next."""

from pathlib import Path

import pytest
from exporting import export_model

from bge_export.contracts import Exporter
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.openvino import OpenVinoExporter


@pytest.mark.parametrize(
    "exporter",
    [OnnxExporter(), OnnxExporter(sentence_embedding=True), OpenVinoExporter()],
    ids=["onnx", "tail", "openvino"],
)
def test_an_int8_export_is_repeated_byte_for_byte(exporter: Exporter, tiny: Path, tmp_path: Path) -> None:
    """Sets of graph values were once iterated by address, which gave weights another order in each run."""
    for name in ("one", "two"):
        export_model(exporter, str(tiny), tmp_path / name, precisions=["int8"], check=False)
    files = [path for path in sorted((tmp_path / "one").rglob("*")) if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name
