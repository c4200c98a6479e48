"""Opens a TorchScript file that others wrote, to learn its inputs and outputs, which no file of that format names."""

from collections import Counter
from pathlib import Path

import numpy as np

from bge_export.contracts import TokenBatch
from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.formats import ModelFile, narrowest
from bge_export.formats._torchscript_file import load_torchscript
from bge_export.formats.contents.torchscript import contents

BY_POSITION = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""The order in which transformers' encoders, and all who trace them, take their inputs."""

NARROW = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}
TOKENS = 4


def read(path: Path) -> ModelFile:
    """Return what a file says of itself, after a run of four tokens.

    Raises:
        ArtifactError: torch cannot load or run it, or it returns no tensors.
        MissingLibrary: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingLibrary("torch", "export", "running TorchScript") from error

    try:
        module, found = load_torchscript(path, "cpu"), contents(path)
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"{path} is not a TorchScript file: {first}. Fetch it again.") from error

    names = [one.name for one in module.forward.schema.arguments if one.name != "self"]
    inputs = tuple(names) if set(names) <= set(BY_POSITION) else BY_POSITION[: len(names)]

    ones = np.ones((1, TOKENS), dtype=np.int64)
    feed = TokenBatch(ones, ones, ones * 0).feed(inputs)
    try:
        with torch.inference_mode():
            given = module(*(torch.from_numpy(array) for array in feed.values()))
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"{path} does not run with {', '.join(inputs)}: {first}. Give another file.") from error

    values = given if isinstance(given, tuple) else (given,)
    if not all(isinstance(value, torch.Tensor) for value in values):
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ArtifactError(f"{path} returns {kinds}, not tensors. Only files that return tensors can be measured.")

    elements: Counter[str] = Counter()
    for kind, count in found.weights.items():
        elements[NARROW.get(kind, "")] += count

    return ModelFile(
        precision=narrowest(elements),
        inputs=inputs,
        outputs=tuple(f"output {number}" for number in range(len(values))),
        files=(path.name,),
    )
