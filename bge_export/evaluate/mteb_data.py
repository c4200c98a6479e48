"""Gives a task of mteb its data: from a set of plain files, or from the Hub. Only importing this module loads mteb."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTask

from bge_export.errors import MeasurementError, TextsError
from bge_export.evaluate.local_data import LocalSet, Row, read_rows
from bge_export.parity.figures import escaped

QUOTED = 300


def load(task: AbsTask, local: LocalSet | None) -> None:
    """Load the data of a task, from a set or from the Hub.

    Raises:
        TextsError: a file of the set cannot be read.
        MeasurementError: the data cannot be fetched.
    """
    if local is None:
        try:
            task.load_data()
        except Exception as error:  # datasets and the Hub's client raise whatever their libraries do
            raise MeasurementError(
                f"the data of {task.metadata.name} cannot be loaded: {quoted(error)} Give a folder of data with --data."
            ) from error
        return

    made = {"sts": _pairs, "classification": _classes, "retrieval": _retrieval}[local.kind](local)
    task.dataset = made if local.subset == "default" and local.kind != "retrieval" else {local.subset: made}
    task.dataset_transform()
    task.data_loaded = True


def _pairs(local: LocalSet) -> DatasetDict:
    rows = read_rows(local.files["test"], ("sentence1", "sentence2", "score"))
    columns = {name: [str(row[name]) for row in rows] for name in ("sentence1", "sentence2")}
    return DatasetDict({local.split: Dataset.from_dict({**columns, "score": _numbers(local.files["test"], rows)})})


def _classes(local: LocalSet) -> DatasetDict:
    """Return the rows of both splits; a label becomes its place among the sorted labels."""
    rows = {"train": local.files["train"], local.split: local.files["test"]}
    read = {split: read_rows(path, ("text", "label")) for split, path in rows.items()}
    places = {label: place for place, label in enumerate(sorted({str(row["label"]) for row in read["train"]}))}
    if strange := [row["label"] for row in read[local.split] if str(row["label"]) not in places]:
        raise TextsError(f"{local.files['test']}: the label {strange[0]!r} is not in {local.files['train']}.")

    return DatasetDict(
        {
            split: Dataset.from_dict(
                {"text": [str(row["text"]) for row in rows], "label": [places[str(row["label"])] for row in rows]}
            )
            for split, rows in read.items()
        }
    )


def _retrieval(local: LocalSet) -> dict[str, Any]:
    """Return the documents, the queries, and which documents answer a query."""
    documents = read_rows(local.files["corpus"], ("_id", "text"))
    queries = read_rows(local.files["queries"], ("_id", "text"))
    pairs = read_rows(local.files["qrels"], ("query-id", "corpus-id", "score"))

    relevant: dict[str, dict[str, int]] = {}
    for row, score in zip(pairs, _numbers(local.files["qrels"], pairs), strict=True):
        relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = int(score)

    columns = ("_id", "title", "text")
    corpus = {name.removeprefix("_"): [str(row.get(name) or "") for row in documents] for name in columns}
    asked = [row for row in queries if str(row["_id"]) in relevant]
    texts = {"id": [str(row["_id"]) for row in asked], "text": [str(row["text"]) for row in asked]}
    split = {
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict(texts),
        "relevant_docs": relevant,
        "top_ranked": None,
    }
    return {local.split: split}


def _numbers(path: Path, rows: Sequence[Row]) -> list[float]:
    try:
        return [float(row["score"]) for row in rows]
    except (ValueError, TypeError) as error:
        raise TextsError(f"{path}: a score is not a number: {error}.") from error


def quoted(error: Exception) -> str:
    """Return the text of another library's error, short and on one line."""
    text = escaped(" ".join(str(error).split()))[:QUOTED]
    return text if text.endswith(".") else f"{text}."
