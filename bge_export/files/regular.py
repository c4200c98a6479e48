"""Opens regular files only, up to a size limit per kind; every reader of a small file uses this module.

A pipe without a writer never ends, a device may never end either, and a file of a few hundred gigabytes is not a
configuration. Streamed files (weights, artifacts) have no limit, but must be regular files too.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20

SETTINGS_BYTES = 16 * MIB
"""A JSON settings file: `config.json`, `modules.json`, a manifest."""
TOKENIZER_BYTES = 256 * MIB
"""A tokenizer or a vocabulary; the largest published ones have about 35 MiB."""
LIMITS_BYTES = MIB // 4
"""A file of limits."""
REPORT_BYTES = 512 * MIB
"""A report; one on the package's own texts has at most 1 MiB."""
TEXTS_BYTES = 512 * MIB
"""A file of texts; all texts are kept in memory."""
GOLDEN_BYTES = 64 * MIB
"""Golden texts with their vectors; those of 4,096 components and 2,048 tokens have about 2 MiB."""
VECTORS_BYTES = 4096 * MIB
"""A file of reference vectors."""
GRAPH_BYTES = 2048 * MIB
"""An ONNX file (the limit of its format) or the XML of an OpenVINO model."""
WEIGHTS_BYTES = 50_000 * MIB
"""A weights file on the Hub; the Hub serves larger files only by other means."""


def open_regular(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading; the caller closes it.

    Args:
        path: the file; symbolic links are followed.
        most_bytes: the largest allowed size; None for streamed files.

    Raises:
        OSError: it cannot be opened, is not a regular file, or is too large. Its `strerror` says which.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer. Windows has neither such pipes nor the flag.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))

    # The open file is checked, not its path, which could be replaced in between.
    try:
        state = os.fstat(file)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(state.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a regular file", str(path))

        if most_bytes is not None and state.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {state.st_size} bytes, more than the {most_bytes} allowed", str(path))
    except BaseException:
        os.close(file)
        raise

    return os.fdopen(file, "rb")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than `most_bytes`.
    """
    with open_regular(path, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it grew beyond the {most_bytes} bytes allowed", str(path))
    return content


def read_regular_text(path: Path, most_bytes: int) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        OSError: see `read_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_regular(path, most_bytes).decode("utf-8")


def refuse_irregular(path: Path, most_bytes: int | None = None) -> None:
    """Raise OSError unless a library may safely open `path` by its name.

    Somebody with write access to the folder can still replace the file in between; a downloaded file cannot.
    """
    open_regular(path, most_bytes).close()
