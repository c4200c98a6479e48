"""Regular files, up to a size for their kind: every reader of a small file reads through here.

A pipe that nobody writes to never ends, a device may never end either, and a file of a few hundred gigabytes is no
configuration. Files that are streamed (weights, artifacts) have no limit, but must be regular too.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20

SETTINGS_BYTES = 16 * MIB
"""A JSON file of settings: `config.json`, `modules.json`, a manifest."""
TOKENIZER_BYTES = 256 * MIB
"""A tokenizer or a vocabulary; the largest published ones have about 35 MiB."""
LIMITS_BYTES = MIB // 4
"""A file of limits."""
REPORT_BYTES = 512 * MIB
"""A report; one of the package's own texts has 1 MiB at most."""
TEXTS_BYTES = 512 * MIB
"""A file of texts, all of which are kept in memory."""
VECTORS_BYTES = 4096 * MIB
"""A file of reference vectors."""
GRAPH_BYTES = 2048 * MIB
"""An ONNX file, which its format limits to this, or the XML of an OpenVINO model."""
WEIGHTS_BYTES = 50_000 * MIB
"""A file of weights on the Hub, which gives larger ones in another way only."""


def open_regular(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading; the caller closes it.

    Args:
        path: the file; links are followed.
        most_bytes: how large it may be; None for files that are streamed.

    Raises:
        OSError: it cannot be opened, is no regular file, or is larger. Its `strerror` says which.
    """
    # Without O_NONBLOCK opening a pipe waits for somebody who writes to it. Windows has neither.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
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
        OSError: it cannot be read, is no regular file, or is larger than `most_bytes`.
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
    """Raise OSError unless a library may open `path` by its name.

    The file may be replaced in between; that takes somebody who may write beside it, not a file that was fetched.
    """
    open_regular(path, most_bytes).close()
