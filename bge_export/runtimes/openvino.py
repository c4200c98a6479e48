"""Runs OpenVINO IR and ONNX files in OpenVINO, with precision pinned to float32 except on NPUs, which lack it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact, Session, TokenBatch
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary
from bge_export.precision import precisions

DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}

KEPT_KERNELS = 100
"""Kernels that OpenVINO keeps for shapes it has met, by default 5,000. On bge-small-en in int8 that is 0.4 GiB more for
the shapes of a parity check, and no faster where twenty lengths come in turn."""


class OpenVinoSession:
    """One model in OpenVINO."""

    def __init__(self, artifact: Artifact, device: str, threads: int, hint: str | None) -> None:
        """Compile the model for exactly one device, with `hint` as its precision; nothing is cached on disk."""
        import openvino

        core = openvino.Core()
        model = core.read_model(artifact.root / artifact.model)

        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if DEVICES[device] == "CPU":
            config |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "CPU_RUNTIME_CACHE_CAPACITY": KEPT_KERNELS}
        if hint is not None and device != "npu":  # an NPU computes in float16, whatever the hint
            config["INFERENCE_PRECISION_HINT"] = hint

        shape = model.inputs[0].get_partial_shape()
        if device == "npu" and shape.is_dynamic:
            raise DeviceUnavailable(
                f"an NPU runs models of one shape, and {artifact.model} takes any. Export one with --static-shape "
                f"1x{artifact.spec.inputs.max_tokens}"
            )

        compiled = core.compile_model(model, DEVICES[device], config)
        self._inputs = _names(compiled.inputs, artifact.inputs, f"{artifact.model}: expected exactly the inputs")
        self._outputs = _names(compiled.outputs, artifact.outputs, f"{artifact.model}: expected exactly the outputs")
        self._static = None if shape.is_dynamic else tuple(shape.to_shape())
        self._request = compiled.create_infer_request()

        self.facts: Mapping[str, str] = {
            "openvino": openvino.__version__.partition("-")[0],
            "execution_devices": " ".join(compiled.get_property("EXECUTION_DEVICES")),
            "inference_precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
            **({"threads": str(compiled.get_property("INFERENCE_NUM_THREADS"))} if DEVICES[device] == "CPU" else {}),
        }

    def run(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the graph's outputs; a static-shape model runs the batch in padded pieces."""
        if self._static is None:
            return self._run(batch)

        given = [self._run(piece) for piece in _pieces(batch, *self._static)]
        return {name: _joined([one[name] for one in given], *batch.input_ids.shape) for name in self._outputs}

    def _run(self, batch: TokenBatch) -> dict[str, NDArray[np.float32]]:
        self._request.infer(batch.feed(self._inputs))
        return {name: np.array(self._request.get_tensor(name).data) for name in self._outputs}

    def close(self) -> None:
        """Free the model."""
        del self._request


def _names(ports: Iterable[Any], names: tuple[str, ...], expected: str) -> list[str]:
    """Return the name of each port among `names`; OpenVINO gives some ports additional names.

    Args:
        ports: the graph's inputs or outputs.
        names: the names that they must have.
        expected: the beginning of the error's sentence.

    Raises:
        ArtifactError: the ports are not exactly `names`.
    """
    own = [port.get_names() for port in ports]
    found = [next(iter(each & set(names)), "") for each in own]

    if sorted(found) != sorted(names):
        there = ", ".join("/".join(sorted(each)) for each in own)
        raise ArtifactError(f"{expected} {', '.join(names)}, found {there}. Export it again.")
    return found


def _pieces(batch: TokenBatch, rows: int, length: int) -> Iterator[TokenBatch]:
    """Yield the batch in pieces of one shape. Rows that pad the last piece have one token and are dropped later.

    Raises:
        ArtifactError: a text has more tokens than the shape; truncation would give another text's embedding.
    """
    count, width = batch.input_ids.shape
    if batch.attention_mask[:, length:].any():
        raise ArtifactError(f"the model takes {length} tokens, and a text has more. Export it with a longer shape.")

    for start in range(0, count, rows):
        arrays = []
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            full = np.zeros((rows, length), dtype=np.int64)
            part = getattr(batch, name)[start : start + rows, :length]
            full[: len(part), : min(width, length)] = part
            arrays.append(full)

        arrays[1][len(part) :, 0] = 1
        yield TokenBatch(*arrays)


def _joined(pieces: Sequence[NDArray[np.float32]], texts: int, tokens: int) -> NDArray[np.float32]:
    """Return an output of all pieces for the batch that was cut: B texts and, if it is states, S tokens of each.

    The first state alone, [B, 1, D], stays alone. States of padding beyond the model's shape are zero.
    """
    whole = np.concatenate(pieces)[:texts]
    if whole.ndim < 3 or whole.shape[1] == 1:
        return whole

    states = np.zeros((texts, tokens, whole.shape[2]), dtype=whole.dtype)
    states[:, : whole.shape[1]] = whole[:, :tokens]
    return states


@dataclass(frozen=True)
class OpenVinoRuntime:
    """Opens artifacts in OpenVINO.

    Attributes:
        name: the runtime's name.
        formats: the formats that it reads.
        hint: the precision to which it is pinned; None leaves the choice to OpenVINO.
        known: the names of its devices.
    """

    name: str = "openvino"
    formats: frozenset[str] = frozenset({"openvino", "onnx"})
    hint: str | None = "f32"
    known: tuple[str, ...] = tuple(DEVICES)
    library: str = "openvino"
    extra: str = "openvino"

    def devices(self) -> Mapping[str, str | None]:
        """Return each known device -> None if it can be used, else the reason why not."""
        try:
            import openvino
        except ImportError:
            return dict.fromkeys(self.known, str(MissingLibrary(self.library, self.extra, self.name)))

        present = {name.partition(".")[0] for name in openvino.Core().available_devices}
        return {
            device: None if DEVICES[device] in present else f"OpenVINO finds no {DEVICES[device]} here"
            for device in self.known
        }

    def reads(self, artifact: Artifact, _device: str) -> bool:
        """Return whether OpenVINO implements the artifact's operators."""
        lacking = [precision.name for precision in precisions() if self.library in precision.lacked_by]
        return artifact.target.precision not in lacking

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact on `device`.

        Raises:
            ArtifactError: OpenVINO cannot load the file.
            DeviceUnavailable: the device is missing, or OpenVINO uses another device or precision.
            MissingLibrary: openvino is not installed.
        """
        try:
            import openvino  # noqa: F401 - only to tell a missing library from a broken file
        except ImportError as error:
            raise MissingLibrary(self.library, self.extra, "running OpenVINO") from error

        reason = self.devices().get(device, f"it knows no such device; it has {', '.join(self.known)}")
        if reason is not None:
            raise DeviceUnavailable(f"openvino cannot run on {device!r}: {reason}")

        try:
            session = OpenVinoSession(artifact, device, threads, self.hint)
        except RuntimeError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise ArtifactError(
                f"OpenVINO cannot load {artifact.model}: {lines[-1].rstrip(' .!')}. Export it again."
            ) from error

        # OpenVINO may choose another device or precision than requested.
        used = session.facts["execution_devices"]
        if any(name.partition(".")[0] != DEVICES[device] for name in used.split()):
            raise DeviceUnavailable(f"requested {DEVICES[device]}, but {used} is used instead")
        if self.hint and device != "npu" and session.facts["inference_precision"] != self.hint:
            raise DeviceUnavailable(
                f"requested {self.hint} on {DEVICES[device]}, "
                f"but {session.facts['inference_precision']} is used instead"
            )

        return session


RUNTIME = OpenVinoRuntime()
