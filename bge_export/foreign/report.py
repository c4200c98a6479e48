"""The report on files that others wrote, a JSON file of a schema of its own: the gate takes it for no proof."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bge_export.errors import ReportError
from bge_export.files.single import written_whole
from bge_export.foreign.measure import ForeignProof, Unmeasured
from bge_export.parity.report import FOREIGN_SCHEMA
from bge_export.parity.show.render import as_json as parity_json

OWN_FOREIGN_REPORT = re.compile(rb'\A\s*{\s*"schema"\s*:\s*"bge_export\.foreign/')
"""Matches the beginning of a file that `write_foreign_report` wrote."""


def as_json(proofs: Sequence[ForeignProof | Unmeasured]) -> dict[str, Any]:
    """Return what was found of each file as JSON-compatible types."""
    return {
        "schema": FOREIGN_SCHEMA,
        "within_limits": all(isinstance(proof, ForeignProof) and proof.verdict.passed for proof in proofs),
        "files": [_file(proof) for proof in proofs],
    }


def _file(proof: ForeignProof | Unmeasured) -> dict[str, Any]:
    if isinstance(proof, Unmeasured):
        return {"file": proof.name, "unmeasured": proof.reason}

    file, reading, artifact = proof.file, proof.reading, proof.file.artifact
    held = {
        "file": file.name,
        "sha256": file.sha256,
        "format": artifact.target.format,
        "limits_of": str(artifact.target),
        "inputs": list(artifact.inputs),
        "outputs": list(artifact.outputs),
    }

    read = {
        "output": reading.output,
        "form": reading.form,
        "pooling": reading.pooling,
        "divided_by_its_norm": reading.unit,
        "agreement": reading.agreement,
    }

    unknown = list(proof.unknown)
    return {**held, **read, "unknown": unknown, "measured": parity_json(proof.report, proof.verdict)}


def write_foreign_report(proofs: Sequence[ForeignProof | Unmeasured], path: Path) -> None:
    """Write the report, whole or not at all.

    Raises:
        ReportError: the file cannot be written.
    """
    table = as_json(proofs)
    for file, proof in zip(table["files"], proofs, strict=True):
        lanes = proof.report.lanes if isinstance(proof, ForeignProof) else ()
        file["rows"] = {
            f"{lane.runtime}:{lane.device}": [row.model_dump(mode="json") for row in lane.rows] for lane in lanes
        }

    try:
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(table, ensure_ascii=False, indent=1, allow_nan=False) + "\n", "utf-8")
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror}. Choose another path.") from error
