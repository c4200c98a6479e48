"""Scores of a folder's own files in mteb's tasks: for the card's table, its `model-index`, and `.eval_results/`.

Only results of the bytes that are published are taken: a result names its artifact and the beginning of its digest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bge_export.contracts import Artifact
from bge_export.errors import ReportError, UsageError
from bge_export.files.json_files import parse
from bge_export.files.reading import reading
from bge_export.files.regular import SETTINGS_BYTES, read_regular_text

FOLDER = ".eval_results"
"""Where the Hub looks for results, one file a task."""
MADE = "# Written by bge-export.\n"
"""The first line of such a file: the next publishing replaces it."""
LOCAL = "sha256-"
"""The beginning of a revision that is not the Hub's, but of plain files."""


@dataclass(frozen=True)
class Score:
    """The main score of one artifact in one split and subset of a task.

    Attributes:
        task, kind, metric: mteb's names.
        dataset: the data set on the Hub.
        revision: its revision; None if the rows were read from files.
        split, subset: those of the data set.
        target: the artifact, such as `onnx-int8`.
        where: its runtime and device.
        value: the score x 100.
        date: when it was scored, as ISO 8601.
        version: of mteb.
    """

    task: str
    kind: str
    metric: str
    dataset: str
    revision: str | None
    split: str
    subset: str
    target: str
    where: str
    value: float
    date: str
    version: str


def read_scores(results: Path, artifacts: Sequence[Artifact]) -> tuple[Score, ...]:
    """Return the scores of these artifacts in a folder of `bge-export evaluate --task`, the most exact file first.

    Raises:
        UsageError: it holds none.
        ReportError: a result cannot be read.
    """
    digests = {str(one.target): one.digest for one in artifacts}
    found: list[Score] = []
    for path in sorted(results.glob("results/*/*/experiments/*/model_meta.json")):
        named = _read(path).get("experiment_kwargs") or {}
        target, _, where = str(named.get("artifact", "")).partition("@")
        digest = str(named.get("digest", ""))
        if "vectors" in named:  # not those that the folder promises
            continue
        if not digest or not digests.get(target, "").startswith(digest):
            continue

        for result in sorted(path.parent.glob("*.json")):
            if result != path:
                found += _scores(result, results, target, where)

    if not found:
        raise UsageError(
            f"{results} holds no scores of these files. Score them: bge-export evaluate FOLDER --task TASK -o {results}"
        )
    return tuple(sorted(found, key=lambda one: (one.task, one.subset, one.split, _rank(one))))


def result_files(scores: Sequence[Score]) -> Mapping[str, bytes]:
    """Return the files of `.eval_results/`: the Hub has one score a task, so it is that of the most exact file."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    files = {}
    for task in dict.fromkeys(one.task for one in scores):
        own = [one for one in scores if one.task == task]
        entries = [
            EvalResultEntry(
                dataset_id=one.dataset,
                task_id=f"{one.task}_{one.subset}_{one.split}",
                value=round(one.value, 5),
                dataset_revision=one.revision,
                date=one.date[:10],
                source_url="https://github.com/embeddings-benchmark/mteb/",
                source_name=f"MTEB {one.version}",
                notes=f"{one.target} in {one.where}, scored by bge-export",
            )
            for one in own
            if (one.target, one.where) == (own[0].target, own[0].where)
        ]
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        files[f"{FOLDER}/{task}.yaml"] = (MADE + text).encode()

    return files


def model_index(name: str, scores: Sequence[Score]) -> str:
    """Return the lines of front matter with all scores; nothing without any."""
    if not scores:
        return ""

    import yaml
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    made = [
        EvalResult(
            task_type=one.kind,
            dataset_type=one.dataset,
            dataset_name=f"MTEB {one.task}",
            dataset_config=one.subset,
            dataset_split=one.split,
            dataset_revision=one.revision,
            metric_type=one.metric,
            metric_name=f"{one.metric} of {one.target} in {one.where}",
            metric_value=round(one.value, 5),
        )
        for one in scores
    ]
    index = {"model-index": eval_results_to_model_index(name, made)}
    return str(yaml.safe_dump(index, sort_keys=False, allow_unicode=True))


def score_lines(scores: Sequence[Score]) -> Sequence[str]:
    """Return the lines of the card's table of scores."""
    return [
        f"| {one.task}{'' if one.subset == 'default' else f' ({one.subset})'} | {one.metric} | {one.target} | "
        f"{one.where} | {one.value:.2f} |"
        for one in scores
    ]


def _rank(one: Score) -> tuple[bool, str, str]:
    return not one.target.endswith("-fp32"), one.target, one.where


def _scores(path: Path, results: Path, target: str, where: str) -> list[Score]:
    result, facts = _read(path), _read(results / "tasks" / path.name)

    try:
        revision = str(result["dataset_revision"])
        return [
            Score(
                task=str(result["task_name"]),
                kind=str(facts["type"]),
                metric=str(facts["main_score"]),
                dataset=str(facts["dataset"]),
                revision=None if revision.startswith(LOCAL) else revision,
                split=str(split),
                subset=str(one["hf_subset"]),
                target=target,
                where=where,
                value=100 * float(one["main_score"]),
                date=str(result.get("date") or ""),
                version=str(result["mteb_version"]),
            )
            for split, subsets in result["scores"].items()
            for one in subsets
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReportError(f"{path} is not a result of mteb: {error!r}. Score the task again.") from error


def _read(path: Path) -> dict[str, Any]:
    advice = "Score the task again."
    try:
        with reading(path, ReportError, advice=advice):
            found = parse(read_regular_text(path, SETTINGS_BYTES))
    except ValueError as error:
        raise ReportError(f"{path} is not valid JSON: {error}. {advice}") from error

    if not isinstance(found, dict):
        raise ReportError(f"{path} holds no JSON object. {advice}")
    return found
