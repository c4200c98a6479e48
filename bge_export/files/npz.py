"""Arrays of an `.npz` file, held to the file's own size before memory is taken for them."""

import math
import zipfile
from collections.abc import Collection
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

SUFFIX = ".npy"


def read_arrays(file: BinaryIO, names: Collection[str]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an archive that `numpy.savez` wrote.

    Args:
        file: the archive.
        names: the arrays that it may hold; each may be missing.

    Raises:
        ValueError: it is no such archive, holds others or one twice, or an array is packed or not what it declares.
            Packed arrays are refused because a few bytes can unpack to any size, and nothing here writes them.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(SUFFIX)
            if name not in names or not member.filename.endswith(SUFFIX) or name in arrays:
                raise ValueError(f"it holds {member.filename!r}, which does not belong there")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"{member.filename} is packed. Save it again with numpy.savez")
            arrays[name] = _read_array(archive, member)
    return arrays


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{member.filename} has the version {version} of numpy's format, not (1, 0)")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        declared = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or declared != member.file_size - stream.tell():
            raise ValueError(f"{member.filename} declares {dtype} {shape}, which is not what it holds")
    with archive.open(member) as stream:
        array: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
        return array
