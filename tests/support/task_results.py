"""Results of tasks as `evaluate --task` writes them, without scoring anything."""

import json
from pathlib import Path

FILE = ".eval_results/STS17.yaml"


def write_result(results: Path, target: str, digest: str, score: float, revision: str = "a" * 40) -> Path:
    """Write a result as `evaluate --task` does."""
    folder = results / f"results/local__tiny/rev/experiments/{target}"
    folder.mkdir(parents=True)
    meta = {"experiment_kwargs": {"artifact": f"{target}@onnxruntime:cpu", "digest": digest[:12]}}
    (folder / "model_meta.json").write_text(json.dumps(meta), "utf-8")
    result = {
        "dataset_revision": revision,
        "task_name": "STS17",
        "mteb_version": "2.26.24",
        "date": "2026-11-30T10:00:00",
        "scores": {"test": [{"main_score": score, "hf_subset": "en-en", "languages": ["eng-Latn"]}]},
    }
    (folder / "STS17.json").write_text(json.dumps(result), "utf-8")
    facts = {"dataset": "mteb/sts17-crosslingual-sts", "type": "STS", "main_score": "cosine_spearman"}
    (results / "tasks").mkdir(exist_ok=True)
    (results / "tasks/STS17.json").write_text(json.dumps(facts), "utf-8")
    return folder / "STS17.json"
