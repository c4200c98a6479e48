"""Locates drift in an artifact: compares its states after the embeddings and after each layer with the oracle's.

The first layer outside the limit contains the fault, in its weights or its operators, because the states before it are
right. Only encoders with two layer normalisations per layer (BERT's family) can be read.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.manifest import read_bundle, read_manifest
from bge_export.checkpoint.model import load_model
from bge_export.contracts import Artifact, Checkpoint
from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.inspection.states import find_states
from bge_export.parity.measure.metrics import cosines, max_differences
from bge_export.texts.tokens import TextTokenizer


@dataclass(frozen=True)
class LayerDrift:
    """The drift of one layer at its worst token.

    Attributes:
        layer: `embeddings`, or `layer 0` and so on.
        cosine: the smallest cosine between a token's state and the oracle's; NaN if a cosine is undefined.
        position: the position of that token.
        max_abs: the largest absolute difference over all tokens.
        within: whether the cosine is within the limit.
    """

    layer: str
    cosine: float
    position: int
    max_abs: float
    within: bool


@dataclass(frozen=True)
class Drift:
    """The drift of all layers of one artifact on one text, in order."""

    target: str
    tokens: int
    limit: float
    layers: tuple[LayerDrift, ...]

    @property
    def first(self) -> LayerDrift | None:
        """Return the first layer outside the limit."""
        return next((layer for layer in self.layers if not layer.within), None)


def artifact_at(path: Path) -> Artifact:
    """Return the artifact of a model file, without verifying the file's bytes.

    Raises:
        ArtifactError: the file is not in a folder that bge-export wrote, or the manifest does not list it.
    """
    for root in path.resolve().parents:
        if (root / MANIFEST).is_file():
            name = path.resolve().relative_to(root).as_posix()
            for artifact in read_bundle(root, verify=False)[1]:
                if artifact.model == name:
                    return artifact
            raise ArtifactError(f"{root / MANIFEST} knows no model {name}. Give the model file of an artifact.")
    raise ArtifactError(f"{path} lies in no folder that bge-export wrote. Give the model file of an artifact.")


def find_drift(artifact: Artifact, checkpoint: Checkpoint, text: str, limit: float) -> Drift:
    """Compare the states of one text layer by layer.

    Args:
        artifact: the artifact that drifts.
        checkpoint: the checkpoint that it was exported from.
        text: the text on which the drift was seen.
        limit: the smallest cosine allowed for a token's state.

    Raises:
        ArtifactError: the artifact's states cannot be read, or its layers do not match the checkpoint's.
        CheckpointError: the checkpoint cannot be loaded.
        MissingLibrary: torch, or the format's library, is not installed.
    """
    _refuse_reordered(artifact)

    tokenizer = TextTokenizer.load(artifact.root, artifact.spec.inputs.max_tokens)
    batch = tokenizer.pad(tokenizer.encode([text]))

    wanted = _oracle_states(checkpoint, batch.input_ids)
    try:
        norms = find_states(artifact.target.format)(artifact, batch)
    except MissingLibrary:
        raise
    except Exception as error:
        raise ArtifactError(f"{artifact.model} cannot be read layer by layer: {error}. Export it again.") from error

    # The embeddings have one normalisation, each layer two: its states are the output of the second.
    states = norms[::2]
    if len(norms) != 2 * len(wanted) - 1:
        raise ArtifactError(
            f"{artifact.model} has {len(norms)} layer normalisations where {checkpoint.model_type} with "
            f"{len(wanted) - 1} layers should have {2 * len(wanted) - 1}: its layers cannot be told apart."
        )

    names = ["embeddings", *(f"layer {number}" for number in range(len(wanted) - 1))]
    layers = tuple(_compare(*one, limit) for one in zip(names, states, wanted, strict=True))
    return Drift(str(artifact.target), batch.input_ids.shape[1], limit, layers)


def _refuse_reordered(artifact: Artifact) -> None:
    """Raise ArtifactError for int8 unless it has the plain arrangement: its states are shifted and reordered."""
    models = read_manifest(artifact.root).models
    options = next(model.options for model in models if model.target == str(artifact.target))

    if artifact.target.precision == "int8" and "plain_arrangement" not in options:
        raise ArtifactError(
            f"{artifact.model} cannot be read layer by layer: between its layers an int8 model has channels in another "
            "order, less a constant each, so that no state of it is one of the checkpoint's. Look into another "
            "precision of the folder; where that is right, it is the rounding that drifts."
        )


def _compare(name: str, states: NDArray[np.float32], wanted: NDArray[np.float32], limit: float) -> LayerDrift:
    cosine = cosines(states, wanted)
    worst = int(np.argmin(np.nan_to_num(cosine, nan=-2.0)))  # an undefined cosine is the worst
    largest = float(np.max(max_differences(states, wanted)))
    return LayerDrift(name, float(cosine[worst]), worst, largest, bool(cosine[worst] >= limit))


def _oracle_states(checkpoint: Checkpoint, input_ids: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Return the oracle's states after the embeddings and after each layer, each [S, D] float32."""
    model = load_model(checkpoint)
    import torch

    with torch.inference_mode():
        states = model(input_ids=torch.from_numpy(input_ids), output_hidden_states=True).hidden_states
    return [state[0].numpy() for state in states]
