"""`load`: opens a folder that an export wrote, and embeds texts with it as its spec says."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bge_export.bundle.declared import refuse_other_spec
from bge_export.bundle.integrity import refuse_changed_files
from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.weighted_head import ready_dense
from bge_export.contracts import LAST_HIDDEN_STATE, Artifact, Session, TokenBatch
from bge_export.errors import TextsError, UsageError
from bge_export.heads.dense import DenseHead
from bge_export.loading.batches import WINDOW, plan_batches
from bge_export.loading.checked import refuse_unproven
from bge_export.loading.choice import choose_artifact
from bge_export.loading.prompt import prompt_text
from bge_export.texts.tokens import TextTokenizer

Progress = Callable[[int, int], object]
"""Called with the number of texts that are embedded, and the number of all."""


class EmbeddingModel:
    """One model of an exported folder, opened in one runtime. Use it in one thread at a time."""

    def __init__(self, artifact: Artifact, tokenizer: TextTokenizer, session: Session) -> None:
        """Wrap an open session and the folder's tokenizer; `load` opens both."""
        self.artifact = artifact
        self._tokenizer = tokenizer
        self._session = session
        self._head = ready_dense(artifact.root, artifact.spec)

    @property
    def width(self) -> int:
        """Return D, the number of values of an embedding."""
        return self._head.dim

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Return the embeddings of N texts, [N, D] float32, in their order; of a single text, [D].

        Pooling and division by the norm are those that the checkpoint promises. Texts are truncated at its longest
        input, sorted by length and padded as little as their batch needs.

        Args:
            texts: the texts, or a single one.
            prompt: what precedes each text: `query`, `document` or another name that the folder declares, or the text
                of a prompt itself, such as `"query: "`; nothing by default.
            batch_size: the largest number of texts that are run together; long ones are fewer.
            progress: called after each batch with the number of texts that are done, and of all.

        Raises:
            UsageError: the folder declares no prompt of that name, or the batch size is less than 1.
            TextsError: what was given is not text.
            ArtifactError: the tokenizer fails on a text.
        """
        before = "" if prompt is None else prompt_text(self.artifact.spec.inputs.prompts, prompt)
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; give at least 1.")

        given = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(given):
            if not isinstance(text, str):
                raise TextsError(f"text {number} is {type(text).__name__}, not str. Give a list of texts.")

        rows = np.empty((len(given), self.width), dtype=np.float32)
        for start in range(0, len(given), WINDOW):
            ids = self._tokenizer.encode([before + text for text in given[start : start + WINDOW]])

            done = start
            for batch in plan_batches([len(row) for row in ids], batch_size):
                vectors = self._vectors(self._tokenizer.pad([ids[number] for number in batch]))
                rows[[start + number for number in batch]] = vectors
                done += len(batch)
                if progress is not None:
                    progress(done, len(given))

        return rows[0] if isinstance(texts, str) else rows

    def _vectors(self, batch: TokenBatch) -> NDArray[np.float32]:
        """Return the vectors of a batch, [B, D], from the states; from the graph's own vectors if it has no states."""
        given = self._session.run(batch)
        output = LAST_HIDDEN_STATE if LAST_HIDDEN_STATE in given else self.artifact.outputs[0]
        return self._head.rows({output: given[output]}, batch.attention_mask)[output]

    def close(self) -> None:
        """Free the model; nothing can be embedded afterwards."""
        self._session.close()

    def __enter__(self) -> Self:
        """Return the model itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Free the model."""
        self.close()


def load(
    folder: str | Path,
    *,
    precision: str | None = None,
    runtime: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    verify: bool = True,
    unchecked: bool = False,
) -> EmbeddingModel:
    """Open a model of a folder that `bge-export` wrote.

    By default that is the ONNX file in ONNX Runtime on the CPU, which imports onnxruntime, tokenizers, numpy and
    pydantic, and neither torch nor transformers.

    Args:
        folder: the folder.
        precision: such as `int8`; by default `fp32` where the folder has it, else the only one that it has.
        runtime: such as `openvino`; by default the one of the folder's first format among ONNX, OpenVINO, TorchScript.
        device: such as `cuda`. A runtime that would silently use another device is an error.
        threads: the runtime's threads; by default all cores.
        verify: whether the bytes of the model and of the small files beside it are compared with the manifest first,
            which reads the model once more.
        unchecked: load a model although the folder's report refuses it or speaks of other files, and without a warning
            if there is no report.

    Raises:
        UsageError: the folder has no such precision, or nothing that the runtime reads.
        ArtifactError: the folder was not written by `bge-export`, its files are not those that were written, or its
            own report (`parity.json`) refuses the model or speaks of other files.
        ReportError: the report is damaged.
        DeviceUnavailable: the device is missing.
        MissingLibrary: the runtime's library is not installed.
    """
    root = Path(folder)
    manifest, artifacts = read_bundle(root, verify=False)
    artifact, opener = choose_artifact(root, artifacts, precision, runtime)
    if DenseHead.kind not in artifact.spec.heads:
        raise UsageError(f"{root} gives {', '.join(artifact.spec.heads)}, not one vector a text.")

    if verify:
        refuse_changed_files(root, {name: manifest.files[name] for name in artifact.files})
        refuse_other_spec(root, artifact.spec)
    if not unchecked:
        refuse_unproven(root, artifact)

    tokenizer = TextTokenizer.load(root, artifact.spec.inputs.max_tokens)
    return EmbeddingModel(artifact, tokenizer, opener.open(artifact, device, threads or _cores()))


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
