"""Reads evaluation sets from a folder of plain files, in place of the data sets on the Hub that mteb's tasks name.

`manifest.json` lists the sets: mteb's name of the task and of its subset, its kind, its files with their sha256, and
scores that were published for it. Files are tab-separated (`.tsv`, without quoting) or JSON lines, gzipped or not.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bge_export.errors import TextsError
from bge_export.files.digest import combined_digest, file_sha256
from bge_export.files.json_files import parse
from bge_export.files.reading import first_fault, reading
from bge_export.files.regular import SETTINGS_BYTES, TEXTS_BYTES, read_regular, read_regular_text

MANIFEST = "manifest.json"

Kind = Literal["sts", "classification", "retrieval"]
FILES: Mapping[Kind, tuple[str, ...]] = {
    "sts": ("test",),
    "classification": ("train", "test"),
    "retrieval": ("corpus", "queries", "qrels"),
}
"""Kind of a set -> the names of its files."""

Row = Mapping[str, Any]


class _Set(BaseModel):
    """One set in the manifest; fields that are not named here are for people."""

    model_config = ConfigDict(frozen=True)

    mteb_task: str
    mteb_subset: str = "default"
    type: Kind
    split: str = "test"
    dir: str
    files: dict[str, str]
    sha256: dict[str, str]
    published: dict[str, float] = {}


@dataclass(frozen=True)
class LocalSet:
    """The data of one task.

    Attributes:
        task: mteb's name of the task.
        subset, split: those that the data is of.
        kind: what the task scores.
        files: name in `FILES` -> path.
        digest: one sha256 over the files.
        published: model -> its published score, from 0 to 1.
    """

    task: str
    subset: str
    split: str
    kind: Kind
    files: Mapping[str, Path]
    digest: str
    published: Mapping[str, float]


def read_sets(folder: Path) -> Mapping[str, LocalSet]:
    """Return mteb's name of a task -> the set that a folder holds for it; no file of a set is opened.

    Raises:
        TextsError: the manifest is missing or malformed.
    """
    path, advice = folder / MANIFEST, "Give a folder whose manifest lists its sets with --data."
    try:
        with reading(path, TextsError, advice=advice):
            fields = parse(read_regular_text(path, SETTINGS_BYTES))
        listed = [_Set.model_validate(one) for one in fields["tasks"]] if isinstance(fields, dict) else []
    except ValidationError as error:
        raise TextsError(f"{path}: {first_fault(error)}. {advice}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TextsError(f"{path} lists no sets under 'tasks'. {advice}") from error

    return {one.mteb_task: _local(folder, path, one) for one in listed}


def refuse_changed(local: LocalSet, folder: Path) -> None:
    """Raise TextsError if a file of a set is missing, or its bytes are not those of the manifest."""
    found = {}
    for name, path in local.files.items():
        with reading(path, TextsError, advice=f"Restore {folder}."):
            found[name] = file_sha256(path)

    if combined_digest(found) != local.digest:
        raise TextsError(f"{local.task}: a file of {folder} is not the one that {MANIFEST} lists. Restore the folder.")


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a file, each with these columns.

    Raises:
        TextsError: the file cannot be read, or a row lacks a column.
    """
    try:
        with reading(path, TextsError):
            content = read_regular(path, TEXTS_BYTES)
        text = (_unpacked(content) if path.suffix == ".gz" else content).decode("utf-8")
        rows = _of_lines(text) if ".jsonl" in path.suffixes else _of_table(text)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TextsError(f"{path} cannot be read: {error}.") from error

    for number, row in enumerate(rows, 1):
        if missing := [name for name in columns if name not in row]:
            raise TextsError(f"{path}: row {number} has no {missing[0]!r}; it needs {', '.join(columns)}.")
    return rows


def _local(folder: Path, path: Path, one: _Set) -> LocalSet:
    names = FILES[one.type]
    if missing := [name for name in names if one.sha256.get(one.files.get(name, "")) is None]:
        raise TextsError(f"{path}: {one.mteb_task} has no file {missing[0]!r}, or no sha256 of it. Add them.")

    inside = {name: PurePosixPath(one.dir) / one.files[name] for name in names}
    if outside := [str(one) for one in inside.values() if one.is_absolute() or ".." in one.parts]:
        raise TextsError(f"{path} names {outside[0]!r}, which is outside of {folder}.")

    digest = combined_digest({name: one.sha256[one.files[name]] for name in names})
    files = {name: folder / where for name, where in inside.items()}
    return LocalSet(one.mteb_task, one.mteb_subset, one.split, one.type, files, digest, one.published)


def _unpacked(content: bytes) -> bytes:
    """Return what gzip packed, up to `TEXTS_BYTES`."""
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    text = unpacking.decompress(content, TEXTS_BYTES + 1)
    if len(text) > TEXTS_BYTES or not unpacking.eof:
        raise ValueError(f"it is damaged, or holds more than {TEXTS_BYTES} bytes")
    return text


def _of_lines(text: str) -> list[Row]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is not a JSON object")
    return rows


def _of_table(text: str) -> list[Row]:
    header, *lines = text.removesuffix("\n").split("\n")
    names = header.split("\t")
    return [dict(zip(names, line.split("\t"), strict=False)) for line in lines]
