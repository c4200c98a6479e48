"""What is run on each checkpoint, as data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Export:
    """An export as a user runs it: `bge-export COMMAND CHECKPOINT -o FOLDER OPTIONS`.

    Attributes:
        command: of bge-export.
        options: after the folder.
        target: what the figures are of.
    """

    command: str
    options: tuple[str, ...]
    target: str


@dataclass(frozen=True)
class Peer:
    """A file as other tools write it: ONNX Runtime's dynamic quantization, handed to the gate as `onnx-int8`.

    Attributes:
        per_channel: whether each output channel of a weight has a scale of its own.
        target: what the gate is told that it is.
    """

    per_channel: bool
    target: str = "onnx-int8"


def _onnx(precision: str) -> Export:
    return Export("onnx", ("--quantize", precision), f"onnx-{precision}")


JOBS: Mapping[str, Export | Peer] = {
    "onnx-int8": _onnx("int8"),
    "openvino-int8": Export("openvino", ("--quantize", "int8"), "openvino-int8"),
    "transformersjs-int8": Export("transformersjs", ("--dtypes", "int8"), "onnx-int8"),
    "onnx-q4": _onnx("q4"),
    "onnx-q4f16": _onnx("q4f16"),
    "onnx-uint8": _onnx("uint8"),
    "onnx-int8-dynamic": _onnx("int8-dynamic"),
    "onnx-bnb4": _onnx("bnb4"),
    "peer-per-channel": Peer(per_channel=True),
    "peer-per-tensor": Peer(per_channel=False),
}
"""Name, as `--jobs` takes it -> the job. An export passes if it is good; a peer's file must be refused."""
