"""Readers of files that others wrote say in the same words why they cannot, each with its own advice."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bge_export.bench.report import read_bench
from bge_export.bundle.manifest import read_manifest
from bge_export.errors import ArtifactError, BgeExportError, CheckpointError, PolicyError, ReportError, TextsError
from bge_export.files.json_files import read_object
from bge_export.files.toml_files import read_toml
from bge_export.parity.report import read_report
from bge_export.texts.corpus import load_corpus

Reader = Callable[[Path], object]
READERS: dict[str, tuple[str, Reader, type[BgeExportError], str]] = {
    "checkpoint": ("a.json", read_object, CheckpointError, "Give the whole folder of a transformers checkpoint."),
    "limits": (
        "a.toml",
        lambda path: read_toml(path, 1000, PolicyError, "a file of limits"),
        PolicyError,
        "Give the path of a file of limits.",
    ),
    "report": ("a.json", read_report, ReportError, "Measure again with: bge-export parity FOLDER --reference MODEL"),
    "bench": ("a.json", read_bench, ReportError, "Measure again with: bge-export bench FOLDER --output FILE"),
    "manifest": (
        "bge_export.json",
        lambda path: read_manifest(path.parent),
        ArtifactError,
        "Write one with: bge-export onnx MODEL -o FOLDER",
    ),
    "texts": ("a.txt", lambda path: load_corpus(path, None), TextsError, "Give the path of a file of texts."),
}


@pytest.mark.parametrize(("name", "read", "kind", "advice"), READERS.values(), ids=READERS)
def test_a_missing_file_is_named_with_what_to_do(
    tmp_path: Path, name: str, read: Reader, kind: type[BgeExportError], advice: str
) -> None:
    with pytest.raises(kind) as caught:
        read(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
    assert advice in str(caught.value)
    assert "Errno" not in str(caught.value)
    assert "No such file" not in str(caught.value)


@pytest.mark.parametrize(("name", "read", "kind", "advice"), READERS.values(), ids=READERS)
def test_a_folder_in_place_of_a_file_is_said_to_be_one(
    tmp_path: Path, name: str, read: Reader, kind: type[BgeExportError], advice: str
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(kind, match=r"cannot be read: Is a directory|is a folder, not a report") as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
