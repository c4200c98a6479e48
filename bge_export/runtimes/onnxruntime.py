"""Runs ONNX files in ONNX Runtime, and verifies that the requested execution provider really runs the nodes."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import Artifact, Session, TokenBatch
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cpu": (CPU, "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "rocm": ("MIGraphXExecutionProvider", "onnxruntime-migraphx"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime on macOS"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "webgpu": ("WebGpuExecutionProvider", "onnxruntime-webgpu"),
}
"""Device -> execution provider, and the distribution whose build includes it."""

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "cuda": {"use_tf32": "0"},  # TF32 silently rounds the inputs of float32 products to 11 bits
    "openvino": {"device_type": "CPU", "precision": "FP32"},  # else it may choose another device and precision
}
"""Provider options by device. TensorRT also uses TF32, and has no option to disable it
(https://github.com/microsoft/onnxruntime/issues/26029): the command line sets `NVIDIA_TF32_OVERRIDE=0`. Python callers
must set it before the first session, else the rounding counts against the limits."""

WORK = ("MatMul", "Gemm", "Attention", "LayerNorm", "Softmax", "Gelu", "Erf")
"""Substrings of the names of operators that do a model's work, fused ones included. Beside another provider the CPU may
compute shapes and indices, but none of these. The share of nodes is no evidence, because some providers (OpenVINO,
TensorRT, CoreML) run a whole graph as one node, and `session.disable_cpu_ep_fallback` also rejects shape nodes."""

Nodes = Counter[tuple[str, str]]
"""(provider, operator) -> number of nodes with this operator that the provider ran."""


class OnnxSession:
    """One ONNX file in ONNX Runtime."""

    def __init__(self, session: "onnxruntime.InferenceSession", facts: Mapping[str, str]) -> None:
        """Wrap a session."""
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]
        self.facts = facts

    def run(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the graph's outputs."""
        values = self._session.run(self._outputs, batch.feed(self._inputs))
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session."""
        del self._session


class OnnxRuntime:
    """Opens ONNX artifacts in ONNX Runtime."""

    name = "onnxruntime"
    formats = frozenset({"onnx"})
    known = tuple(PROVIDERS)
    library = "onnxruntime"
    extra = "onnxruntime"

    def devices(self) -> Mapping[str, str | None]:
        """Return each known device -> None if it can be used, else the reason why not."""
        try:
            import onnxruntime
        except ImportError:
            return dict.fromkeys(PROVIDERS, str(MissingLibrary(self.library, self.extra, self.name)))

        present = onnxruntime.get_available_providers()
        return {
            device: None if provider in present else f"this build of onnxruntime has no {provider}; {build} has it"
            for device, (provider, build) in PROVIDERS.items()
        }

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact on `device` with ONNX Runtime's default settings except for the threads, as users run it.

        Raises:
            ArtifactError: ONNX Runtime cannot load the file.
            DeviceUnavailable: the installed build lacks the provider, or the CPU ran its work instead.
            MissingLibrary: onnxruntime is not installed.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingLibrary(self.library, self.extra, "running ONNX artifacts") from error

        reason = self.devices().get(device, f"it knows no such device; it has {', '.join(PROVIDERS)}")
        if reason is not None:
            raise DeviceUnavailable(f"onnxruntime cannot run on {device!r}: {reason}")

        provider = PROVIDERS[device][0]
        try:
            session, nodes = _opened(artifact, device, threads)
        except Exception as error:
            first = str(error).partition("\n")[0]
            raise ArtifactError(f"ONNX Runtime cannot load {artifact.model} on {device!r}: {first}") from error

        _refuse_fall_back(artifact, provider, session.get_providers()[0], nodes)

        facts = {"onnxruntime": onnxruntime.__version__, "provider": provider, **_shares(provider, nodes)}
        return OnnxSession(session, {**facts, **_options(device, threads)})


def _opened(artifact: Artifact, device: str, threads: int) -> tuple["onnxruntime.InferenceSession", Nodes]:
    """Return a session, and the nodes that each provider ran in one small run; none for the CPU, which is alone.

    The nodes come from the session's profile, which is ended and deleted after that run.
    """
    if PROVIDERS[device][0] == CPU:
        return _session(artifact, device, threads), Counter()

    # Windows keeps the profile open until the session is gone.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        session = _session(artifact, device, threads, Path(folder) / "profile")
        ones = np.ones((1, 4), dtype=np.int64)
        session.run(None, TokenBatch(ones, ones, ones * 0).feed([value.name for value in session.get_inputs()]))
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text("utf-8"))

    arguments = [event.get("args", {}) for event in events if event.get("name", "").endswith("_kernel_time")]
    return session, Counter((one["provider"], one.get("op_name", "")) for one in arguments if "provider" in one)


def _refuse_fall_back(artifact: Artifact, provider: str, first: str, nodes: Nodes) -> None:
    """Raise DeviceUnavailable unless `provider` comes first and runs all of the model's work itself."""
    if first != provider:
        raise DeviceUnavailable(f"{provider} was requested, but {first} is used instead")
    if provider == CPU:
        return

    left = {
        name: count for (who, name), count in nodes.items() if who != provider and any(part in name for part in WORK)
    }

    if left or not any(who == provider for who, _ in nodes):
        what = ", ".join(f"{count} {name}" for name, count in sorted(left.items())) or "every node"
        raise DeviceUnavailable(
            f"{provider} was asked for and fell back to the CPU, which runs {what} of {artifact.model}"
        )


def _shares(provider: str, nodes: Nodes) -> dict[str, str]:
    """Return the share of nodes that `provider` ran, and the number of nodes that each provider ran."""
    by_provider: Counter[str] = Counter()
    for (who, _), count in nodes.items():
        by_provider[who] += count

    share = {"share_of_nodes": f"{by_provider[provider] / by_provider.total() if nodes else 1:.4f}"}
    return share | {f"nodes_{who}": str(count) for who, count in sorted(by_provider.items())}


def _options(device: str, threads: int) -> dict[str, str]:
    """Return the provider's options; for OpenVINO with the thread count, because it ignores the session's."""
    return {**OPTIONS.get(device, {}), **({"num_of_threads": str(threads)} if device == "openvino" else {})}


def _session(
    artifact: Artifact, device: str, threads: int, profile: Path | None = None
) -> "onnxruntime.InferenceSession":
    """Return a session with one provider; onnxruntime adds the CPU behind it for nodes that it cannot run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3

    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)

    provider = (PROVIDERS[device][0], _options(device, threads))
    return onnxruntime.InferenceSession(artifact.root / artifact.model, sess_options=options, providers=[provider])


RUNTIME = OnnxRuntime()
