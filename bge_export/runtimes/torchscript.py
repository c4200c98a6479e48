"""Runs TorchScript files in PyTorch, without further libraries. Inputs are passed by position, so both layouts work."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.torch_devices import DEVICES, open_device, torch_devices
from bge_export.contracts import Artifact, Session, TokenBatch
from bge_export.errors import MissingLibrary
from bge_export.formats._torchscript_file import load_torchscript

if TYPE_CHECKING:
    from torch.nn import Module


class TorchScriptSession:
    """One TorchScript file on one device."""

    def __init__(self, module: "Module", artifact: Artifact, device: str, facts: Mapping[str, str]) -> None:
        """Wrap a loaded file."""
        self._module = module
        self._artifact = artifact
        self._device = device
        self.facts = facts

    def run(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the graph's outputs."""
        import torch

        feed = batch.feed(self._artifact.inputs)
        with torch.inference_mode():
            given = self._module(*(torch.from_numpy(array).to(self._device) for array in feed.values()))

        values = given if isinstance(given, tuple) else (given,)
        return {name: value.cpu().numpy() for name, value in zip(self._artifact.outputs, values, strict=True)}

    def close(self) -> None:
        """Free the model."""
        del self._module


class TorchScriptRuntime:
    """Opens TorchScript artifacts in torch."""

    name = "torchscript"
    formats = frozenset({"torchscript"})
    known = DEVICES
    library = "torch"
    extra = "export"

    def devices(self) -> Mapping[str, str | None]:
        """Return each known torch device -> None if it can be used, else the reason why not."""
        return torch_devices()

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact on `device`; float32 runs without TF32.

        Raises:
            ArtifactError: torch cannot load the file, or it reaches outside of the model.
            DeviceUnavailable: the device is missing.
            MissingLibrary: torch is not installed.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingLibrary(self.library, self.extra, "running TorchScript") from error

        facts = open_device(device, threads)
        module = load_torchscript(artifact.root / artifact.model, device)
        return TorchScriptSession(module, artifact, device, {**facts, "threads": str(torch.get_num_threads())})


RUNTIME = TorchScriptRuntime()
