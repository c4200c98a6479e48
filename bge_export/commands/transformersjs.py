"""What a folder for Transformers.js holds besides ONNX files under the names it expects: PyTorch weights and a card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.build.recipe import JavaScriptFolder
from bge_export.commands.extension import Kept
from bge_export.contracts import Checkpoint
from bge_export.errors import UsageError
from bge_export.parity.measure.measurement import RuntimeDevice
from bge_export.publish.facts import CardFacts, facts_of
from bge_export.runtimes import find_runtime

PROVING = ("node@3", "node@4")
"""Devices where the folder is proven besides ONNX Runtime and OpenVINO, if the clients are installed: native builds of
both current versions. `bge-export parity --runtime` measures the others."""


def refuse_scores(checkpoint: Checkpoint) -> None:
    """Raise UsageError for a reranker: no client is driven with pairs yet, so its folder could not be proven there."""
    if checkpoint.spec.is_reranker:
        raise UsageError(
            f"{checkpoint.source} is a reranker: none is proven in Transformers.js yet. Write its ONNX files "
            "with bge-export onnx: they have the names that Transformers.js loads."
        )
    if checkpoint.spec.has_token_heads:
        raise UsageError(
            f"{checkpoint.source} gives {', '.join(checkpoint.spec.outputs)}: no file with such outputs is proven "
            "in Transformers.js yet. Write them with bge-export onnx."
        )


def facts_of_earlier(out: Path, checkpoint: Checkpoint, kept: Kept) -> CardFacts | None:
    """Return what the card of a folder must go on to say if an earlier export wrote one; None if none did.

    A card of another checkpoint is written anew without that one's licence, name and clients.
    """
    earlier = facts_of(out)
    same = kept.models or kept.replaced or kept.report is not None
    return earlier if earlier is None or same else CardFacts(_repository(checkpoint))


def _repository(checkpoint: Checkpoint) -> str:
    """Return a repository's name for examples, as long as nobody gave one."""
    return f"ORGANISATION/{checkpoint.source.rpartition('/')[2]}"


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

    def card_facts(self, checkpoint: Checkpoint) -> CardFacts:
        """Return what the card of the folder says besides manifest and report."""
        return CardFacts(self.options.repository or _repository(checkpoint), self.options.license, clients=True)
