"""What a folder for Transformers.js holds besides ONNX files under the names it expects: PyTorch weights and a card."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.build.recipe import JavaScriptFolder
from bge_export.bundle.origin import weight_names
from bge_export.contracts import Checkpoint
from bge_export.parity.measure.measurement import RuntimeDevice
from bge_export.publish.facts import CardFacts
from bge_export.runtimes import find_runtime

PROVING = ("node@3", "node@4")
"""Devices where the folder is proven besides ONNX Runtime and OpenVINO, if the clients are installed: native builds of
both current versions. `bge-export parity --runtime` measures the others."""


@dataclass(frozen=True)
class ClientFolder:
    """Additional content of the folder, besides models and layout.

    Attributes:
        options: the recipe's options.
    """

    options: JavaScriptFolder

    def devices(self) -> Sequence[RuntimeDevice]:
        """Return the clients to measure in; the report names a missing client, but the gate does not refuse it."""
        return [RuntimeDevice(find_runtime("transformersjs"), device, requested=False) for device in PROVING]

    def write_weights(self, checkpoint: Checkpoint, root: Path) -> Sequence[str]:
        """Copy the safetensors files unchanged, for transformers, sentence-transformers and FlagEmbedding."""
        if not self.options.weights:
            return ()

        names = weight_names(checkpoint)
        for name in names:
            if not (root / name).exists():  # else carried over already, from the checkpoint too
                shutil.copyfile(checkpoint.root / name, root / name)
        return names

    def card_facts(self, checkpoint: Checkpoint) -> CardFacts:
        """Return what the card of the folder says besides manifest and report."""
        repository = self.options.repository or f"ORGANISATION/{checkpoint.source.rpartition('/')[2]}"
        return CardFacts(repository, self.options.license, clients=True)
