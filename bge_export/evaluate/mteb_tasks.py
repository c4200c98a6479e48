"""Runs mteb's own tasks, on data from the Hub or from a folder, and files the results as mteb does.

A result lies in `results/ORG__NAME/REVISION/experiments/ARTIFACT/TASK.json`, in mteb's own form, so that results of
several machines are merged by copying folders together. `items/…` beside it holds what the artifact gave for each item
of a task, for intervals of differences. Only importing this module loads mteb.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mteb
from mteb.abstasks import AbsTask
from mteb.models.model_meta import ModelMeta
from mteb.results import TaskResult

from bge_export.errors import UsageError
from bge_export.evaluate.bootstrap import Items
from bge_export.evaluate.local_data import LocalSet
from bge_export.evaluate.mteb_data import load, quoted
from bge_export.evaluate.mteb_encoder import ArtifactEncoder
from bge_export.evaluate.mteb_items import items_of, read_items, write_items
from bge_export.files.single import written_whole


@dataclass(frozen=True)
class Scored:
    """The result of one task for one artifact.

    Attributes:
        result: mteb's own record.
        items: what the artifact gave for each item; None of kinds of task whose score is neither mean nor correlation.
        already: whether it was there before.
    """

    result: TaskResult
    items: Items | None
    already: bool

    @property
    def score(self) -> float:
        """Return the main score x 100, over all splits and subsets."""
        return 100 * float(self.result.get_score())


def task_of(name: str, local: LocalSet | None) -> AbsTask:
    """Return mteb's task of a name, with the data of a set if there is one.

    Raises:
        UsageError: mteb has no such task.
        TextsError: the data cannot be read.
    """
    try:
        if local is None:
            return mteb.get_task(name)
        subsets = None if local.subset == "default" else [local.subset]
        task = mteb.get_task(name, hf_subsets=subsets, eval_splits=[local.split])
    except (KeyError, ValueError) as error:
        raise UsageError(f"mteb has no task {name!r}: {quoted(error)}") from error

    # The results say that the data was not that of the Hub's revision.
    data = {**task.metadata.dataset, "revision": f"sha256-{local.digest}"}
    task.metadata = task.metadata.model_copy(update={"dataset": data})
    return task


def run_task(task: AbsTask, encoder: ArtifactEncoder, local: LocalSet | None, results: Path) -> Scored:
    """Score an artifact on a task, unless its result is there.

    Raises:
        TextsError: the data cannot be read.
        MeasurementError: the data cannot be fetched, or the artifact cannot be run.
    """
    meta = encoder.meta
    if (known := kept(task, meta, results)) is not None:
        return known

    load(task, local)
    with TemporaryDirectory(prefix="bge_export-mteb-") as name, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The task .* is superseded")  # the user named it
        warnings.filterwarnings("ignore", "Precision is ill-defined")  # of labels that no classifier predicted
        done = mteb.evaluate(
            encoder,  # type: ignore[arg-type] # it meets the protocol, which mteb checks
            task,
            cache=mteb.ResultCache(results),
            overwrite_strategy="always",
            prediction_folder=Path(name),
            co2_tracker=False,
            show_progress_bar=False,
        )
        predictions = json.loads((Path(name) / task.prediction_file_name).read_text("utf-8"))

    _write_facts(task, results)
    items = items_of(task, predictions)
    write_items(_items_path(task, meta, results), items)
    (result,) = done.task_results
    return Scored(result, items, already=False)


def kept(task: AbsTask, meta: ModelMeta, results: Path) -> Scored | None:
    """Return the result of a task that is there already, if it is of the same data and all of it."""
    try:
        found = mteb.ResultCache(results).load_task_result(task.metadata.name, meta)
    except (ValueError, KeyError, TypeError):  # it was being written when an earlier call was killed
        return None

    if found is None or found.dataset_revision != task.metadata.revision or found.get_missing_evaluations(task):
        return None
    return Scored(found, read_items(_items_path(task, meta, results)), already=True)


def _write_facts(task: AbsTask, results: Path) -> None:
    """Write what a card says of a task besides its scores, so that writing one needs no mteb."""
    path = results / "tasks" / f"{task.metadata.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)

    known = task.metadata
    facts = {"dataset": known.dataset["path"], "type": str(known.type), "main_score": str(known.main_score)}
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def _items_path(task: AbsTask, meta: ModelMeta, results: Path) -> Path:
    """Return the path of a result's items: that of the result, below another folder."""
    cache = mteb.ResultCache(results)
    path = cache.get_task_result_path(task_name=task.metadata.name, model_name=meta)
    return results / "items" / path.relative_to(results / "results")
