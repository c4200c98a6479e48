"""Limits for rounded weights of checkpoints that are noise.

The limits that ship are measured on trained weights. Random ones, 32 or 64 wide, lose more: no weight of theirs is
small, and the sums are short. A wrong graph is still far below.
"""

import tomllib
from pathlib import Path

import tomli_w

from bge_export.texts.fixtures import fixtures_folder

LOWEST = {
    "int8": (0.95, 0.995),
    "uint8": (0.97, 0.95),
    "int8-dynamic": (0.96, 0.95),
    "q4": (0.85, 0.995),
    "q4f16": (0.85, 0.995),
    "bnb4": (0.6, 0.9999),
}
"""Precision -> smallest cosine, and smallest in a batch. Measured on `parity_fixtures/tiny` 0.984 and 0.968, 0.978 and
0.974, 0.889 and 0.9991, 0.884 and 0.9994; on the checkpoints of `architectures` better everywhere."""

STATES = 0.3
"""Smallest cosine of a token's state, in the sweep of ids."""


def noise_limits(folder: Path) -> Path:
    """Write the shipped limits with wider ones for rounded files; return the file."""
    tables = tomllib.loads((fixtures_folder() / "thresholds.toml").read_text("utf-8"))
    for precision, (cosine, batch) in LOWEST.items():
        for target in (f"onnx-{precision}", f"openvino-{precision}"):
            if target in tables:
                tables = {name: fields for name, fields in tables.items() if not name.startswith(f"{target}@")}
                tables[target] |= {"min_cosine": cosine, "min_stress_cosine": cosine, "min_batch_cosine": batch}
                tables[target] |= {"min_token_cosine": STATES, "min_sequence_cosine": STATES}
    path = folder / "thresholds.toml"
    path.write_text(tomli_w.dumps(tables), "utf-8")
    return path
