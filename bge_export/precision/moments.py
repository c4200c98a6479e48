"""What the products of a graph are given: the second moments of their inputs over texts that ship with the package."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.fixtures import fixtures_folder
from bge_export.tokens import TextTokenizer

if TYPE_CHECKING:
    import onnxruntime

IR_VERSION = 8
"""onnx stamps its newest, which onnxruntime may not know yet."""

BATCH_TOKENS = 1024
"""Padded tokens a batch, which bound the memory that all inputs of all layers take."""

Moments = Mapping[str, NDArray[np.float32]]
"""Name of a tensor [..., K] -> the mean of x xᵀ over all tokens, [K, K] float32."""


def calibration_texts() -> list[str]:
    """Return the texts: English and Chinese prose of many kinds, none of which is a fixture text."""
    folder = fixtures_folder() / "calibration"
    return [line for path in sorted(folder.glob("*.txt")) for line in path.read_text("utf-8").splitlines() if line]


def second_moments(
    model: onnx.ModelProto, names: Sequence[str], texts: Sequence[str], tokenizer: TextTokenizer
) -> Moments:
    """Run the graph over texts and return the second moments of some of its tensors; padding is left out.

    Args:
        model: a float32 graph.
        names: tensors of it, [B, S, K] float32 each.
        texts: what to run it on.
        tokenizer: texts -> token ids.
    """
    session = _probe(model, names)
    inputs = [value.name for value in session.get_inputs()]
    sums: dict[str, NDArray[np.float32]] = {}
    count = 0
    for rows in _batches(tokenizer.encode(texts)):
        batch = tokenizer.pad(rows)
        mask = batch.attention_mask > 0
        count += int(mask.sum())
        for name, values in zip(names, session.run(list(names), batch.feed(inputs)), strict=True):
            tokens = values[mask]
            product = tokens.T @ tokens
            sums[name] = sums[name] + product if name in sums else product
    return {name: total / np.float32(count) for name, total in sums.items()}


def _probe(model: onnx.ModelProto, names: Sequence[str]) -> "onnxruntime.InferenceSession":
    """Return a session of the graph whose outputs are some of its tensors."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.ir_version = IR_VERSION
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of outputs without shapes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        onnx.save_model(probe, path, save_as_external_data=True, location="weights")  # a message ends at 2 GiB
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _batches(rows: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Yield rows of similar length, so many that their padded size stays below `BATCH_TOKENS`."""
    batch: list[tuple[int, ...]] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * len(row) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
