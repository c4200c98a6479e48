"""The token tables of measured files, held to the checkpoint's, as a report lists them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.parity.report import TableRecord
from bge_export.precision import find_precision, precision_names
from bge_export.sweep.states import Sweep
from bge_export.token_tables import open_lookup, readable_formats, row_errors

MOST_LETTERS = 300
"""Longest reason that a report holds."""


def known_tables(artifacts: Iterable[Artifact], sweep: Sweep) -> dict[str, TableRecord]:
    """Return digest -> the token table of each artifact whose format can be read; none without the checkpoint."""
    readable = [item for item in artifacts if item.target.format in readable_formats()]
    if sweep.read_table is None or not readable:
        return {}

    table = sweep.read_table()
    found: dict[str, TableRecord] = {}
    for artifact in readable:
        try:
            found[artifact.digest] = _record(artifact, table, sweep.facts.pad)
        except MissingLibrary:
            continue
        except ArtifactError as error:
            # Without the folder, so that every machine says the same of the same bytes.
            reason = str(error).removeprefix(f"{artifact.root / artifact.model}: ")
            found[artifact.digest] = TableRecord(rows=0, unread=reason[:MOST_LETTERS], worst=None, token=-1)

    return found


def _record(artifact: Artifact, table: NDArray[np.float32], pad: int) -> TableRecord:
    """Return what is found of one artifact's table; rows that are not finite are the worst.

    Raises:
        ArtifactError: the file's lookup cannot be run.
        MissingLibrary: a library is not installed.
    """
    precision = artifact.target.precision
    if precision not in precision_names():
        return TableRecord(rows=0, unread=f"there is no precision {precision}", worst=None, token=-1)

    lookup = open_lookup(artifact.root / artifact.model, artifact.target.format)
    errors = row_errors(lookup, table, find_precision(precision).table, pad)
    if errors is None:
        return TableRecord(rows=0, unread="nothing in it is the checkpoint's table", worst=None, token=-1)

    worst = int(np.argmax(errors))  # the first NaN, if there is one
    figure = float(errors[worst])
    return TableRecord(rows=len(errors), unread=None, worst=figure if np.isfinite(figure) else None, token=worst)
