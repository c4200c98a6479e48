"""ONNX Runtime. The execution provider is the one asked for, and verified after the session is made."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import SENTENCE_EMBEDDING, Artifact, Session, TokenBatch
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary
from bge_export.pooling import pool

PROVIDERS = {"cpu": "CPUExecutionProvider"}


class OnnxSession:
    """One ONNX file in ONNX Runtime."""

    def __init__(self, artifact: Artifact, provider: str, threads: int) -> None:
        """Load the file with `threads` threads; other settings are ONNX Runtime's defaults, as users run it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            artifact.root / artifact.model, sess_options=options, providers=[provider]
        )
        self._spec = artifact.spec
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        self.facts: Mapping[str, str] = {
            "onnxruntime": onnxruntime.__version__,
            "provider": self._session.get_providers()[0],
        }

    def embed(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the embeddings by output, [B, D] float32; token states are pooled as the artifact promises."""
        values = self._session.run(self._outputs, batch.feed(self._inputs))
        return {
            name: value if name == SENTENCE_EMBEDDING else pool(value, batch.attention_mask, self._spec)
            for name, value in zip(self._outputs, values, strict=True)
        }

    def close(self) -> None:
        """Free the session."""
        del self._session


class OnnxRuntime:
    """Opens ONNX artifacts in ONNX Runtime."""

    name = "onnxruntime"
    formats = frozenset({"onnx"})
    library = "onnxruntime"
    extra = "onnxruntime"

    def devices(self) -> Mapping[str, str | None]:
        """Return each device known here -> None, or why it cannot be used."""
        try:
            import onnxruntime
        except ImportError:
            return {device: str(MissingLibrary(self.library, self.extra, self.name)) for device in PROVIDERS}
        present = onnxruntime.get_available_providers()
        return {
            device: None if provider in present else f"this build of onnxruntime has no {provider}"
            for device, provider in PROVIDERS.items()
        }

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact on `device`.

        Raises:
            DeviceUnavailable: the installed build lacks the provider, or another took its place.
            ArtifactError: ONNX Runtime cannot load the file.
            MissingLibrary: onnxruntime is not installed.
        """
        try:
            import onnxruntime  # noqa: F401 - only to tell a missing library from a broken file
        except ImportError as error:
            raise MissingLibrary(self.library, self.extra, "running ONNX artifacts") from error
        reason = self.devices().get(device, f"it knows no such device; it has {', '.join(PROVIDERS)}")
        if reason is not None:
            raise DeviceUnavailable(f"onnxruntime cannot run on {device!r}: {reason}")
        try:
            session = OnnxSession(artifact, PROVIDERS[device], threads)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ArtifactError(f"ONNX Runtime cannot load {artifact.model}: {error}") from error
        if session.facts["provider"] != PROVIDERS[device]:
            raise DeviceUnavailable(f"asked for {PROVIDERS[device]}, but {session.facts['provider']} took its place")
        return session


RUNTIME = OnnxRuntime()
