"""Reads what a TorchScript file holds, without unpickling: the types and sizes of its constants, and its operators.

Every constant counts, whether its code reads it or not: there is one precision, the most exact one, and constants that
nothing reads cannot make its limits wider.
"""

import lzma
import pickletools
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from bge_export.files.regular import MIB, open_regular
from bge_export.formats.contents import Contents
from bge_export.formats.contents.torch_code import operators_of

PICKLE_BYTES = 4 * MIB
"""The largest allowed list of constants; an encoder of 24 layers has a few ten KiB."""

CODE_BYTES = MIB // 4
"""The most source text in one archive, whose syntax tree takes a thousand times as much; an encoder of 24 layers has
about 50 KiB."""

CODE = ".py"
WEIGHTS = ("/data.pkl", "/constants.pkl")
"""Files of the archive that hold parameters and constants; another may hold the inputs of the trace."""

TYPES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
"""Name of a storage's class in torch, without `Storage` -> the name that numpy uses; others keep their own."""

STORAGE = re.compile(r"torch (\w+)Storage")


BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError)
"""What `zipfile` raises for an archive that is damaged or packed in an unusual way."""


def contents(path: Path) -> Contents:
    """Return what a file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a TorchScript file, or its code is not of the subset of Python.
    """
    found = Contents()
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            for pickled in _read(archive, WEIGHTS, PICKLE_BYTES):
                _add_storages(pickled, found)

            sources = _read(archive, (CODE,), CODE_BYTES)
    except BROKEN as error:
        raise ValueError(f"it is no archive of torch: {error}") from error

    if not sources:
        raise ValueError("it holds no code")
    for source in sources:
        found.operators.update(operators_of(source.decode()))
    return found


def _read(archive: zipfile.ZipFile, endings: tuple[str, ...], most_bytes: int) -> Sequence[bytes]:
    """Return the files of an archive whose names end so, in any case, as a reader of archives may look for them.

    Raises:
        ValueError: they are larger than `most_bytes` together.
    """
    entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(endings)]
    size = sum(entry.file_size for entry in entries)
    if size > most_bytes:
        raise ValueError(f"{entries[0].filename} and files like it have {size} bytes, more than {most_bytes}")

    return [archive.read(entry) for entry in entries]


def _add_storages(pickled: bytes, found: Contents) -> None:
    """Add each storage: the last class and integer before the operation that looks it up."""
    memo: dict[int, object] = {}
    last: object = None
    kind, size = "", 0

    for operation, value, _ in pickletools.genops(pickled):
        if operation.name in ("BINPUT", "LONG_BINPUT"):
            memo[_number(value)] = last
            continue

        last = memo.get(_number(value)) if operation.name in ("BINGET", "LONG_BINGET") else value
        if isinstance(last, str) and (match := STORAGE.fullmatch(last)):
            kind = match[1]
        elif isinstance(last, int):
            size = last

        if operation.name == "BINPERSID":
            found.weights[TYPES.get(kind, kind)] += size


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError("its list of constants is damaged")
    return value
