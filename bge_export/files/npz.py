"""Reads the arrays of an `.npz` file, with sizes checked against the file before memory is allocated."""

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
        names: the arrays that it may hold; each is optional.

    Raises:
        ValueError: it is not a valid archive, holds an unknown or duplicate array, or an array is compressed or does
            not match its header. Compressed arrays are rejected because a few bytes can unpack to any size, and the
            package never writes them.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(SUFFIX)
            if name not in names or not member.filename.endswith(SUFFIX) or name in arrays:
                raise ValueError(f"it holds {member.filename!r}, which does not belong there")

            if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                raise ValueError(f"{member.filename} is compressed. Save it again with numpy.savez")

            arrays[name] = _read_array(archive, member)
    return arrays


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"{member.filename} has the version {version} of numpy's format, not (1, 0)")

        # numpy allocates as much memory as the header declares, so the header must match the file.
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        declared = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or declared != member.file_size - stream.tell():
            raise ValueError(f"{member.filename} declares {dtype} {shape}, which is not what it holds")

    with archive.open(member) as stream:
        array: NDArray[np.generic] = np.lib.format.read_array(stream, allow_pickle=False)
        return array
