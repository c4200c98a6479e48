"""Reads what a TorchScript file holds, without unpickling: the types and sizes of the storages of its constants."""

import pickletools
import re
import zipfile
from pathlib import Path

from bge_export.bundle.contents._facts import Contents
from bge_export.files.regular import MIB, open_regular

PICKLE_BYTES = 64 * MIB
"""The largest allowed list of constants; an encoder of 24 layers has a few ten KiB."""

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


def contents(path: Path) -> Contents:
    """Return what a file holds; operators are not read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a TorchScript file.
    """
    found = Contents()
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(WEIGHTS):
                    if entry.file_size > PICKLE_BYTES:
                        raise ValueError(f"{entry.filename} has {entry.file_size} bytes")
                    _add_storages(archive.read(entry), found)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from error

    return found


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
