"""Reads the tensors of a safetensors file into numpy, bfloat16 too, which numpy lacks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.errors import CheckpointError, MissingLibrary
from bge_export.files.panics import LibraryPanicError, panics_as_errors
from bge_export.files.regular import WEIGHTS_BYTES, open_regular

TYPES: Mapping[str, type[np.generic]] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""Type of a stored tensor -> that of its bytes in numpy."""


def read_stored(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield name and values of each tensor; bfloat16 becomes float32.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or holds a type that no encoder has.
        MissingLibrary: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise MissingLibrary("safetensors", "export", "reading a PyTorch checkpoint") from error

    try:
        with panics_as_errors(), open_regular(path, WEIGHTS_BYTES) as file:
            stored = deserialize(file.read())  # type: ignore[no-untyped-call]  # safetensors' are untyped
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}. Fetch the file again.") from error
    except (SafetensorError, LibraryPanicError) as error:
        raise CheckpointError(f"{path} is damaged: {error}. Fetch the file again.") from error

    for name, tensor in stored:
        if tensor["dtype"] not in TYPES:
            raise CheckpointError(f"{path}: the tensor {name!r} is of the type {tensor['dtype']}. Save it as float32.")
        yield name, _array(**tensor)


def _array(dtype: str, shape: Sequence[int], data: bytes) -> NDArray[Any]:
    values = np.frombuffer(bytes(data), dtype=TYPES[dtype]).reshape(shape)
    if dtype == "BF16":  # the upper half of a float32
        return np.left_shift(values.astype(np.uint32), 16).view(np.float32)
    return values
