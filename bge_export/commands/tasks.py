"""The evaluating command for mteb's tasks: scores artifacts, and compares each with the checkpoint or the first one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.bundle.manifest import Manifest, read_bundle
from bge_export.checkpoint.opening import as_artifacts
from bge_export.commands.choosing import chosen_target
from bge_export.commands.measuring import open_reference
from bge_export.commands.turns import in_turn
from bge_export.contracts import Artifact, Runtime
from bge_export.errors import MissingLibrary, UsageError
from bge_export.evaluate.bootstrap import interval
from bge_export.evaluate.embedding import opened, unnormalized
from bge_export.evaluate.local_data import LocalSet, read_sets, refuse_changed
from bge_export.publish.facts import REPOSITORY
from bge_export.runtimes import find_runtime

if TYPE_CHECKING:
    from mteb.abstasks import AbsTask

    from bge_export.evaluate.mteb_tasks import Scored


@dataclass(frozen=True)
class TaskOptions:
    """How tasks are scored.

    Attributes:
        targets: the artifacts; by default all that the runtime reads.
        runtime, device: where they run.
        data: a folder of sets in place of the Hub; None to load from the Hub.
        results: the folder of mteb's results; those that are there already are kept.
        reference: the checkpoint, a Hub id or a folder, which is scored as well; None to leave it out.
        revision: its revision on the Hub.
        threads: threads of the runtime.
        unnormalized: whether vectors are taken before they are divided by their norm. No cosine depends on that, but
            the classifiers of classification tasks do.
    """

    targets: tuple[str, ...] = ()
    runtime: str = "onnxruntime"
    device: str = "cpu"
    data: Path | None = None
    results: Path = Path("scores")
    reference: str | None = None
    revision: str | None = None
    threads: int = 1
    unnormalized: bool = False


@dataclass(frozen=True)
class TaskScore:
    """The score of one artifact on one task, x 100.

    Attributes:
        task, metric: mteb's names.
        artifact: the target, runtime and device, such as `onnx-int8@onnxruntime:cpu`.
        score: the main score, over all splits and subsets.
        baseline: the artifact that it is compared with; None of the baseline itself.
        difference: from the baseline's score; None of the baseline itself.
        interval: 95 % of that difference, by a paired bootstrap over the items; None if they are not known.
        published: the score that was published for the checkpoint; None if none is known.
        already: whether the result was there before.
    """

    task: str
    metric: str
    artifact: str
    score: float
    baseline: str | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    published: float | None = None
    already: bool = False


@dataclass(frozen=True)
class _Lane:
    """An artifact and where it runs."""

    artifact: Artifact
    runtime: Runtime
    device: str

    @property
    def where(self) -> str:
        return f"{self.runtime.name}:{self.device}"


@in_turn
def evaluate_tasks(folder: Path, tasks: Sequence[str], options: TaskOptions | None = None) -> list[TaskScore]:
    """Score artifacts of a folder on mteb's tasks, each beside the checkpoint and beside what was published.

    Results that are there already are not made again, so that an interrupted call goes on where it ended.

    Args:
        folder: a folder that bge-export wrote.
        tasks: mteb's names of tasks.
        options: how they are scored.

    Raises:
        UsageError: an argument cannot be used, or mteb has no such task.
        TextsError: a set of data is damaged, or not there.
        MeasurementError: a library is missing, data cannot be fetched, or an artifact could not be run.
    """
    options = options or TaskOptions()
    try:
        from bge_export.evaluate import mteb_tasks
    except ImportError as error:
        raise MissingLibrary(error.name or "mteb", "mteb", "Scoring tasks") from error

    manifest, lanes = _lanes(folder, options)
    local = _local_sets(tasks, options.data)
    asked = {name: mteb_tasks.task_of(name, local.get(name)) for name in tasks}

    found: list[TaskScore] = []
    for name, task in asked.items():
        scored = [(lane, _scored(lane, task, manifest, local.get(name), options)) for lane in lanes]
        published = _published(local.get(name), manifest.source.id)
        rows = _compared(name, str(task.metadata.main_score), scored)
        found += [replace(row, published=None if published is None else 100 * published) for row in rows]
    return found


def _published(local: LocalSet | None, source: str) -> float | None:
    """Return what was published for a checkpoint; of a local folder for the only model of its name."""
    if local is None:
        return None

    named = [model for model in local.published if source in (model, model.rpartition("/")[2])]
    return local.published[named[0]] if len(named) == 1 else None


def _lanes(folder: Path, options: TaskOptions) -> tuple[Manifest, Sequence[_Lane]]:
    """Return what is scored: the checkpoint first, if it is, then the artifacts, the most exact one first."""
    reader = find_runtime(options.runtime)
    manifest, every = read_bundle(folder)
    if manifest.spec.is_reranker:
        raise UsageError(
            f"{folder} holds a reranker, and mteb's tasks are run for embeddings here. bge-export parity compares its "
            "logits and orders."
        )

    held = {str(one.target): one for one in every if one.target.format in reader.formats}
    if not held:
        raise UsageError(f"{folder} holds nothing that {options.runtime} reads ({', '.join(sorted(reader.formats))}).")

    targets = [chosen_target(list(held), name) for name in options.targets] or list(held)
    targets.sort(key=lambda name: not name.endswith("-fp32"))
    lanes = [_Lane(held[name], reader, options.device) for name in dict.fromkeys(targets)]
    if options.reference is None:
        return manifest, lanes

    checkpoint = open_reference(options.reference, options.revision, manifest)
    (itself,) = as_artifacts(checkpoint, ("fp32",))
    return manifest, [_Lane(itself, find_runtime("torch"), "cpu"), *lanes]


def _local_sets(tasks: Sequence[str], data: Path | None) -> Mapping[str, LocalSet]:
    """Return the sets of these tasks, their bytes verified; nothing without a folder of data."""
    if data is None:
        return {}

    sets = read_sets(data)
    if missing := [name for name in tasks if name not in sets]:
        raise UsageError(f"{data} holds no data of {missing[0]}, only of {', '.join(sorted(sets))}.")

    local = {name: sets[name] for name in tasks}
    for one in local.values():
        refuse_changed(one, data)
    return local


def _scored(lane: _Lane, task: "AbsTask", manifest: Manifest, local: LocalSet | None, options: TaskOptions) -> "Scored":
    """Return the result of an artifact on a task; the artifact is opened only if the result is not there."""
    from bge_export.evaluate.mteb_encoder import ArtifactEncoder, meta_of
    from bge_export.evaluate.mteb_tasks import kept, run_task

    source = manifest.source
    name = source.id if REPOSITORY.fullmatch(source.id) else f"local/{source.id.replace('/', '_')}"
    revision = source.revision or source.digest[:40]
    meta = meta_of(lane.artifact, name, revision, lane.where, unnormalized=options.unnormalized)
    if (known := kept(task, meta, options.results)) is not None:
        return known

    artifact = unnormalized(lane.artifact) if options.unnormalized else lane.artifact
    with opened(artifact, lane.runtime, lane.device, options.threads) as embedder:
        return run_task(task, ArtifactEncoder(embedder, meta), local, options.results)


def _compared(task: str, metric: str, scored: "Sequence[tuple[_Lane, Scored]]") -> Iterator[TaskScore]:
    """Yield the scores of a task; each but the first is compared with the first."""
    _, first = scored[0]
    names = [f"{lane.artifact.target}@{lane.where}" for lane, _ in scored]
    yield TaskScore(task, metric, names[0], first.score, already=first.already)

    for name, (_, one) in zip(names[1:], scored[1:], strict=True):
        both = None if one.items is None or first.items is None else interval(one.items, first.items)
        yield TaskScore(
            task,
            metric,
            name,
            one.score,
            baseline=names[0],
            difference=one.score - first.score,
            interval=both,
            already=one.already,
        )
