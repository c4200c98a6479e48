"""An artifact as an encoder of mteb: the one protocol by which its tasks ask for vectors.

Only importing this module loads mteb.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray

from bge_export.contracts import Artifact
from bge_export.evaluate.embedding import Embedder
from bge_export.heads.dense import dense_head
from bge_export.progress import stage

FRAMEWORKS = {"onnx": "ONNX", "openvino": "OpenVINO", "torchscript": "PyTorch", "checkpoint": "PyTorch"}
"""Format -> the name that mteb has for its framework."""


def meta_of(artifact: Artifact, name: str, revision: str, where: str, *, unnormalized: bool = False) -> ModelMeta:
    """Return what mteb files the results of an artifact under: the base model, and the artifact as its experiment.

    Args:
        artifact: the artifact.
        name: the checkpoint's id, as ORG/NAME.
        revision: its revision.
        where: the runtime and device, such as `onnxruntime:cpu`.
        unnormalized: whether its vectors are taken before their norm, although the model divides by it.
    """
    head = dense_head(artifact.spec)
    known = FRAMEWORKS.get(artifact.target.format)

    return ModelMeta(
        loader=None,
        name=name,
        revision=revision,
        release_date=None,
        languages=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=artifact.spec.inputs.max_tokens,
        embed_dim=head.dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=[known] if known else [],  # type: ignore[list-item] # the table holds names of the library
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=bool(artifact.spec.inputs.prompts.get("query")),
        training_datasets=None,
        experiment_kwargs={
            "artifact": f"{artifact.target}@{where}",
            "digest": artifact.digest[:12],
            **({"vectors": "unnormalized"} if unnormalized else {}),
        },
    )


class ArtifactEncoder(AbsEncoder):
    """Embeds the texts of mteb's tasks with an artifact.

    A text begins with a prompt only where mteb says what it is: a query or a document. Tasks of pairs and of classes
    say neither.
    """

    def __init__(self, embedder: Embedder, meta: ModelMeta) -> None:
        """Wrap an opened artifact."""
        self.mteb_model_meta = self.meta = meta
        self._embedder = embedder

    def encode(
        self,
        inputs: Iterable[Mapping[str, Sequence[str]]],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_: object,
    ) -> NDArray[np.float32]:
        """Return the vectors of N texts, [N, D] float32, of the artifact's first output."""
        prompts = self._embedder.artifact.spec.inputs.prompts
        before = prompts.get(str(prompt_type.value), "") if prompt_type is not None else ""
        texts = [before + text for batch in inputs for text in batch["text"]]

        name = f"{task_metadata.name} {hf_subset} {hf_split}: {self._embedder.artifact.target}"
        with stage(name, len(texts)):
            found = self._embedder.embed(texts)
        return found[self._embedder.artifact.outputs[0]].astype(np.float32)
