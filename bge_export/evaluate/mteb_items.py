"""What an artifact gave for each item of a task, from mteb's predictions, and its file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from mteb.abstasks import AbsTask

from bge_export.evaluate.bootstrap import Items
from bge_export.files.single import written_whole


def items_of(task: AbsTask, predictions: Mapping[str, Any]) -> Items | None:
    """Return what an artifact gave for each item of a task with one split and one subset."""
    by_subset = {name: splits for name, splits in predictions.items() if name != "mteb_model_meta"}
    found = [(subset, split) for subset, splits in by_subset.items() for split in splits]
    if len(found) != 1:
        return None

    subset, split = found[0]
    given = by_subset[subset][split]
    whole: Any = task.dataset
    data = whole.get(subset, whole)
    kind, metric = str(task.metadata.type), str(task.metadata.main_score)
    empty = np.zeros(0)

    if kind == "STS" and metric == "cosine_spearman":
        gold = np.asarray(data[split]["score"], dtype=np.float64)
        return Items("correlation", np.asarray(given["cosine_scores"], dtype=np.float64), gold)
    if kind == "Classification" and metric == "accuracy":
        right = np.asarray(given) == np.asarray(data[split][str(getattr(task, "label_column_name", "label"))])
        return Items("mean", right.mean(axis=0), empty)
    if kind == "Retrieval" and metric == "ndcg_at_10":
        from pytrec_eval import RelevanceEvaluator

        scored = RelevanceEvaluator(data[split]["relevant_docs"], {"ndcg_cut.10"}).evaluate(given)
        return Items("mean", np.asarray([scored[query]["ndcg_cut_10"] for query in sorted(scored)]), empty)
    return None


def write_items(path: Path, items: Items | None) -> None:
    """Write the items of a result; without any, remove those of an earlier one."""
    if items is None:
        path.unlink(missing_ok=True)
        return

    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"kind": items.kind, "values": items.values.tolist(), "gold": items.gold.tolist()}
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(fields), "utf-8")


def read_items(path: Path) -> Items | None:
    """Return the items of a result; None if they are not there or not whole."""
    try:
        fields = json.loads(path.read_text("utf-8"))
        kind: Literal["mean", "correlation"] = fields["kind"]
        return Items(kind, np.asarray(fields["values"], dtype=np.float64), np.asarray(fields["gold"], dtype=np.float64))
    except (OSError, ValueError, KeyError, TypeError):
        return None
