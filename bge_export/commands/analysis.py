"""Analysis of an artifact: the layer where it drifts from its checkpoint, and its task scores."""

from pathlib import Path

from bge_export.bundle.manifest import read_bundle
from bge_export.checkpoint.opening import open_wanted
from bge_export.checkpoint.spec import Wanted
from bge_export.commands.measuring import read_policy
from bge_export.commands.turns import in_turn
from bge_export.errors import UsageError
from bge_export.evaluate.similarity import PairScore, read_pairs, score_pairs
from bge_export.heads.dense import dense_head, without_embeddings
from bge_export.inspection.bisect import Drift, artifact_at, find_drift
from bge_export.progress import stage
from bge_export.runtimes import find_runtime


@in_turn
def bisect_artifact(
    path: Path,
    reference: str,
    text: str,
    *,
    revision: str | None = None,
    limit: float | None = None,
    thresholds: Path | None = None,
) -> Drift:
    """Compare an artifact with its checkpoint layer by layer, on one text.

    Args:
        path: the artifact's model file.
        reference: the checkpoint, a Hub id or a folder.
        text: the text on which the artifact drifts.
        revision: the checkpoint's Hub revision.
        limit: the smallest allowed cosine of a token's state; by default the target's `min_cosine`.
        thresholds: a file of limits to use instead of the package's own.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: the artifact's intermediate values cannot be read.
    """
    artifact = artifact_at(path)
    if artifact.spec.has_token_heads:
        raise UsageError(f"{path}: {without_embeddings(artifact.spec.heads)}")
    if artifact.spec.is_reranker:
        raise UsageError(
            f"{path} is of a reranker, whose files give no token states: bisect compares those of embedding models. "
            "Look at single pairs in the report of bge-export parity."
        )

    if limit is None:
        limits = read_policy(thresholds).limits_for(str(artifact.target), "", "")
        if limits is None:
            raise UsageError(f"There are no limits for {artifact.target}. Give one with --limit.")
        limit = limits.min_cosine

    wanted = Wanted(default_pooling=dense_head(artifact.spec).pooling, embedding=True)
    checkpoint = open_wanted(reference, revision, wanted)
    return find_drift(artifact, checkpoint, text, limit)


@in_turn
def evaluate_pairs(
    folder: Path,
    pairs: Path,
    *,
    runtime: str = "onnxruntime",
    device: str = "cpu",
    threads: int = 1,
) -> list[PairScore]:
    """Score every artifact of a folder that `runtime` reads, on a file of scored sentence pairs.

    Raises:
        UsageError: an argument cannot be used, or the runtime reads none of the artifacts.
        MeasurementError: an artifact could not be run.
    """
    reader = find_runtime(runtime)
    task = read_pairs(pairs)

    manifest, every = read_bundle(folder)
    if manifest.spec.has_token_heads:
        raise UsageError(f"{folder}: {without_embeddings(sorted(manifest.spec.heads.kinds))}")
    if manifest.spec.is_reranker:
        raise UsageError(
            f"{folder} holds a reranker: evaluate compares the cosines of two embeddings with human scores, and a "
            "reranker has no embedding. bge-export parity compares its logits and orders."
        )

    artifacts = [item for item in every if item.target.format in reader.formats]
    if not artifacts:
        raise UsageError(f"{folder} holds nothing that {runtime} reads ({', '.join(sorted(reader.formats))}).")

    with stage(f"scoring on {task.name}", 2 * len(task.scores) * len(artifacts)):
        return [score for artifact in artifacts for score in score_pairs(artifact, reader, device, threads, task)]
