"""Runs the checkpoint itself in eager PyTorch, on another device or in another precision than the oracle's.

Its artifacts are not exported files; `checkpoint.as_artifacts` makes them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.model import load_model
from bge_export.checkpoint.opening import open_checkpoint, open_encoder
from bge_export.checkpoint.torch_devices import DEVICES, open_device, torch_devices
from bge_export.contracts import LAST_HIDDEN_STATE, LOGITS, Artifact, Session, TokenBatch
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary
from bge_export.heads.dense import dense_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


class EagerSession:
    """The checkpoint's encoder on one device."""

    def __init__(self, model: "PreTrainedModel", artifact: Artifact, device: str, facts: Mapping[str, str]) -> None:
        """Wrap a loaded encoder."""
        self._model = model
        self._artifact = artifact
        self._device = device
        self.facts = facts

    def run(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the token states [B, S, D], or a reranker's logits [B, 1], as float32, of the model's precision."""
        import torch

        arrays = batch.feed(self._artifact.inputs)
        feed = {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}

        with torch.inference_mode():
            given = self._model(**feed)

        name = LOGITS if self._artifact.spec.is_reranker else LAST_HIDDEN_STATE
        return {name: given[name].float().cpu().numpy()}

    def close(self) -> None:
        """Free the model."""
        del self._model


class EagerRuntime:
    """Runs a checkpoint in torch."""

    name = "torch"
    formats = frozenset({"checkpoint"})
    known = DEVICES
    library = "torch"
    extra = "export"

    def devices(self) -> Mapping[str, str | None]:
        """Return each known torch device -> None if it can be used, else the reason why not."""
        return torch_devices()

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the checkpoint on `device` in the artifact's precision; float32 runs without TF32.

        Raises:
            ArtifactError: the checkpoint's files have changed since the artifact was made.
            CheckpointError: the checkpoint cannot be loaded.
            DeviceUnavailable: the device is missing.
            MissingLibrary: torch or transformers is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingLibrary(self.library, self.extra, "running a PyTorch checkpoint") from error

        if artifact.spec.has_token_heads:
            raise DeviceUnavailable("the checkpoint itself is not measured yet where it has a sparse or vector head")

        facts = open_device(device, threads)
        if artifact.spec.is_reranker:
            checkpoint = open_checkpoint(artifact.root)
        else:
            checkpoint = open_encoder(artifact.root, pooling=dense_head(artifact.spec).pooling)
        if checkpoint.digest != artifact.digest:
            raise ArtifactError(f"{artifact.root} has changed since it was opened. Run the command again.")

        dtype = DTYPES[artifact.target.precision]
        model: PreTrainedModel = torch.nn.Module.to(load_model(checkpoint), device=device, dtype=getattr(torch, dtype))
        facts = {**facts, "dtype": dtype, "threads": str(torch.get_num_threads())}
        return EagerSession(model, artifact, device, facts)


RUNTIME = EagerRuntime()
