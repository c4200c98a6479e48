"""Loads a folder in the libraries that its kind of model was made for, and compares with them on the checkpoint.

    python lab/own_libraries.py CHECKPOINT FOLDER [--report lab/own_libraries.json]

It runs in an environment of `lab/consumers/*.txt` (sentence_transformers_5, sentence_transformers_6 or flag_embedding)
and imports nothing of bge_export. A folder is exported with `--to onnx:fp32 --to openvino:fp32 --with-weights`; what it
does not hold is left out. Printed is the largest difference of a number: a logit, a token's weight, a component.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
from numpy.typing import NDArray

FIXTURES = Path(__file__).resolve().parent.parent / "parity_fixtures"
FLOAT32 = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
BACKENDS: Mapping[str, Mapping[str, Any]] = {
    "torch": {},
    "onnx": {"backend": "onnx"},
    "openvino": {"backend": "openvino", "model_kwargs": FLOAT32},
}
TEXTS, PAIRS = 60, 60
Rows = Sequence[NDArray[np.float32]]


@dataclass(frozen=True)
class Lane:
    """One way to load the folder.

    Attributes:
        library: the library and its version.
        loaded: the class.
        backend: what runs the model.
        setting: what must be set besides the folder; "" if nothing.
        rows: folder, options of the backend -> the answers for all texts.
    """

    library: str
    loaded: str
    backend: str
    setting: str
    rows: Callable[[str, Mapping[str, Any]], Rows]


def lines(name: str, count: int) -> list[dict[str, str]]:
    """Return fixtures, evenly spread; none without a text."""
    found = [json.loads(line) for line in (FIXTURES / name).read_text("utf-8").splitlines()]
    found = [one for one in found if one["text"].strip() and one.get("query", "x").strip()]
    return found[:: max(1, len(found) // count)][:count]


def texts() -> list[str]:
    """Return the texts that are embedded."""
    return [one["text"] for one in lines("texts.jsonl", TEXTS)]


def pairs() -> list[tuple[str, str]]:
    """Return the pairs that are scored."""
    return [(one["query"], one["text"]) for one in lines("pairs.jsonl", PAIRS)]


def scores(folder: str, options: Mapping[str, Any]) -> Rows:
    """Return the scores of a CrossEncoder, with the activation that the folder says."""
    from sentence_transformers import CrossEncoder

    return [np.asarray(CrossEncoder(folder, device="cpu", **options).predict(pairs()))]


def sparse(folder: str, options: Mapping[str, Any]) -> Rows:
    """Return the token weights of a SparseEncoder, [V] a text."""
    from sentence_transformers import SparseEncoder

    return [row.to_dense().numpy() for row in SparseEncoder(folder, device="cpu", **options).encode(texts())]


def multi_vector(folder: str, options: Mapping[str, Any]) -> Rows:
    """Return the vectors of tokens of a MultiVectorEncoder, [S, M] a text, as document and as query."""
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(folder, device="cpu", **options)
    return [np.asarray(row) for row in (*model.encode_document(texts()), *model.encode_query(texts()))]


def dense(folder: str, options: Mapping[str, Any]) -> Rows:
    """Return the vectors of a SentenceTransformer."""
    from sentence_transformers import SentenceTransformer

    return list(SentenceTransformer(folder, device="cpu", **options).encode(texts()))


def flag_lengths(folder: str) -> dict[str, int]:
    """Return the longest inputs that FlagEmbedding is told: it takes 512 tokens unless it is."""
    most = json.loads((Path(folder) / "tokenizer_config.json").read_text("utf-8"))["model_max_length"]
    return {"query_max_length": most, "passage_max_length": most}


def flag_scores(folder: str, options: Mapping[str, Any]) -> Rows:
    """Return the logits of a FlagReranker."""
    from FlagEmbedding import FlagReranker

    most = flag_lengths(folder)["query_max_length"]
    model = FlagReranker(folder, use_fp16=False, devices=["cpu"], max_length=most, **options)
    return [np.asarray(model.compute_score(pairs()))]


def flag_dense(folder: str, options: Mapping[str, Any]) -> Rows:
    """Return the vectors of a FlagModel."""
    from FlagEmbedding import FlagModel

    model = FlagModel(folder, use_fp16=False, devices=["cpu"], **flag_lengths(folder), **options)
    return list(model.encode(texts()))


def m3(folder: str, options: Mapping[str, Any], *, load: bool = True) -> Rows:
    """Return the answers of all three heads; `load` says whether both layers are read from their safetensors."""
    from FlagEmbedding import BGEM3FlagModel
    from safetensors.torch import load_file

    layers = {name: Path(folder) / f"{name}.safetensors" for name in ("sparse_linear", "colbert_linear")}
    width = _width(folder)
    model = BGEM3FlagModel(
        folder, use_fp16=False, devices=["cpu"], colbert_dim=width, **flag_lengths(folder), **options
    )
    for name, path in layers.items():
        if load and path.is_file():
            getattr(model.model, name).load_state_dict(load_file(path))

    found = model.encode(texts(), return_sparse=True, return_colbert_vecs=True)
    words = [np.array([weights.get(str(token), 0.0) for token in range(_rows(folder))])
             for weights in found["lexical_weights"]]  # fmt: skip
    return [*found["dense_vecs"], *words, *found["colbert_vecs"]]


def _width(folder: str) -> int:
    """Return the width of a token's vector, of the layer as a pickle or as safetensors."""
    import torch
    from safetensors.torch import load_file

    path = Path(folder) / "colbert_linear"
    pickle = path.with_suffix(".pt")
    layer = torch.load(pickle, weights_only=True) if pickle.is_file() else load_file(path.with_suffix(".safetensors"))
    return int(layer["weight"].shape[0])


def _rows(folder: str) -> int:
    return int(json.loads((Path(folder) / "config.json").read_text("utf-8"))["vocab_size"])


def lanes(heads: set[str]) -> Iterator[Lane]:
    """Yield the ways that the installed libraries have for a model with these heads."""
    kinds = {"score": ("CrossEncoder", scores), "multi_vector": ("MultiVectorEncoder", multi_vector)}
    kinds |= {"sparse": ("SparseEncoder", sparse), "dense": ("SentenceTransformer", dense)}
    head = "dense" if "dense" in heads else min(heads)
    name, rows = kinds[head]

    library = _version("sentence_transformers", "sentence-transformers")
    if library and (head != "multi_vector" or "-transformers 6" in library):
        others = {"onnx": "optimum.onnxruntime", "openvino": "optimum.intel"}
        for backend, options in BACKENDS.items():
            if backend == "torch" or _there(others[backend]):
                setting = ", ".join(f"{key}={json.dumps(value)}" for key, value in options.items())
                yield Lane(library, name, backend, setting, rows)

    library = _version("FlagEmbedding", "FlagEmbedding")
    if library and head == "score":
        yield Lane(library, "FlagReranker", "torch", "max_length", flag_scores)
    if library and head == "dense":
        yield Lane(library, "FlagModel", "torch", "query_max_length, passage_max_length", flag_dense)
    if library and heads == {"dense", "sparse", "multi_vector"}:
        yield Lane(library, "BGEM3FlagModel", "torch", "", lambda folder, given: m3(folder, given, load=False))
        yield Lane(library, "BGEM3FlagModel", "torch", "both layers loaded from their safetensors", m3)


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _version(module: str, distribution: str) -> str:
    return f"{distribution} {importlib.metadata.version(distribution)}" if _there(module) else ""


def furthest(found: Rows, wanted: Rows) -> float:
    """Return the largest difference of a number; infinity where a text has another number of them."""
    if [one.shape for one in found] != [one.shape for one in wanted]:
        return float("inf")
    return max(float(np.abs(one - other).max(initial=0.0)) for one, other in zip(found, wanted, strict=True))


def measured(one: Lane, checkpoint: str, folder: str) -> dict[str, Any] | None:
    """Return the largest difference of a lane from the library on the checkpoint itself, or the lane's error.

    A version that cannot load the checkpoint has nothing to compare: None.
    """
    record = {key: value for key, value in asdict(one).items() if key != "rows"}
    try:
        wanted = one.rows(checkpoint, {})
    except Exception as error:  # noqa: BLE001 - whatever a library raises is its answer
        print(f"{one.library} cannot load the checkpoint itself: {described(error)}", flush=True)
        return None

    try:
        return {**record, "difference": furthest(one.rows(folder, BACKENDS[one.backend]), wanted)}
    except Exception as error:  # noqa: BLE001 - whatever a library raises is its answer
        return {**record, "error": described(error)}


def described(error: Exception) -> str:
    """Return the first line of an error."""
    said = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {said[:120]}"


def main() -> None:
    """Measure every lane, print it, and write it into the report beside those of other folders and libraries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="the folder of the checkpoint")
    parser.add_argument("folder", help="what bge-export wrote of it")
    parser.add_argument("--kind", required=True, help="what the report calls the model, such as 'reranker, BERT'")
    parser.add_argument("--report", type=Path, help="write the figures as JSON; other rows in the file stay")
    asked = parser.parse_args()

    heads = set(json.loads((Path(asked.folder) / "bge_export.json").read_text("utf-8"))["spec"]["heads"])
    rows = []
    for one in lanes(heads):
        if (found := measured(one, asked.checkpoint, asked.folder)) is not None:
            rows.append({"kind": asked.kind, **found})
            print(json.dumps(rows[-1]), flush=True)

    if asked.report is not None:
        earlier = json.loads(asked.report.read_text("utf-8")) if asked.report.is_file() else []
        names = ("kind", "library", "loaded", "backend", "setting")
        table = {tuple(row[name] for name in names): row for row in (*earlier, *rows)}
        asked.report.write_text(json.dumps([table[key] for key in sorted(table)], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
