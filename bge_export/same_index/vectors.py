"""Reads the vectors that an index was built with, from a `.npy` file."""

from pathlib import Path

import numpy as np

from bge_export.errors import TextsError
from bge_export.files.digest import file_sha256
from bge_export.files.regular import VECTORS_BYTES, refuse_irregular
from bge_export.same_index.certificate import IndexSide
from bge_export.same_index.figures import Vectors

NORM_ERROR = 1e-2
"""Vectors whose norms are this near to 1 are normalised: an index may hold them in 16 bits."""


def read_index(path: Path, texts: int) -> tuple[Vectors, IndexSide]:
    """Return the vectors of N texts, [N, D] float64, and what is known of them.

    Args:
        path: a file that `numpy.save` wrote: one row for each text, float16, float32 or float64.
        texts: the number of texts, N.

    Raises:
        TextsError: the file is missing, is not such an array, or has another number of rows.
    """
    advice = "Save one row for each text, in their order, with numpy.save."
    try:
        refuse_irregular(path, VECTORS_BYTES)
        # Mapped, the array cannot declare more than the file holds.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise TextsError(f"{path} does not exist. {advice}") from error
    except OSError as error:
        raise TextsError(f"{path} cannot be read: {error.strerror or error}. {advice}") from error
    except Exception as error:  # numpy raises several types for damage
        raise TextsError(f"{path} is not a .npy file: {error}. {advice}") from error

    if not isinstance(mapped, np.ndarray) or mapped.ndim != 2 or mapped.dtype.kind != "f" or not mapped.shape[1]:
        found = f"{mapped.dtype} {mapped.shape}" if isinstance(mapped, np.ndarray) else "several arrays"
        raise TextsError(f"{path} holds {found}, not rows of floating-point numbers. {advice}")
    if len(mapped) != texts:
        raise TextsError(f"{path} holds {len(mapped)} rows for {texts} texts. Give the texts that the index holds.")

    vectors = np.asarray(mapped, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    # Rows without a direction say nothing of the others; they are refused by themselves.
    known = norms[np.isfinite(norms) & (norms > 0)]
    normalize = bool((np.abs(known - 1.0) <= NORM_ERROR).all())
    side = IndexSide(
        kind="index", name=path.name, digest=file_sha256(path), width=vectors.shape[1], normalize=normalize
    )
    return vectors, side
