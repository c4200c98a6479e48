"""The lines that load a folder's model and embed a text, or score a pair with it, for the end of an export."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bge_export.bundle.manifest import Manifest, Model

POOLED: Mapping[str, str] = {"cls": "states[0, 0]", "mean": "states[0].mean(0)", "last": "states[0, -1]"}
"""Pooling -> the vector of one text that was embedded alone, from its states [1, S, D] as a numpy array."""

SCORE = "score = logits[0, 0]  # higher is better; 1 / (1 + np.exp(-score)) lies between 0 and 1"
"""The line that reads the score of a pair."""

INSTALLS: Mapping[str, str] = {
    "onnx": "onnxruntime tokenizers",
    "openvino": "openvino tokenizers",
    "torchscript": "torch tokenizers numpy",
}


def loading_lines(folder: Path) -> Iterator[str]:
    """Yield Python lines that run the folder's last model on a text or a pair; nothing if no model takes one."""
    from bge_export.bundle.manifest import read_manifest
    from bge_export.contracts import SENTENCE_EMBEDDING
    from bge_export.heads.dense import dense_head

    manifest = read_manifest(folder)
    model = next((one for one in reversed(manifest.models) if _takes_a_text(one)), None)
    if model is None:
        return

    format_name = model.target.partition("-")[0]
    yield f"# pip install {INSTALLS[format_name]}"
    yield f"import numpy as np, tokenizers, {'torch' if format_name == 'torchscript' else _module(format_name)}"
    if query := manifest.spec.inputs.prompts.get("query"):
        yield f"# a query begins with {query!r}"

    pairs = manifest.spec.is_reranker
    given = '"how far is the moon", "384,400 km on average"' if pairs else '"That is a happy person"'
    yield f'tokens = tokenizers.Tokenizer.from_file("{folder / "tokenizer.json"}").encode({given})'
    arrays = {
        "input_ids": "[tokens.ids]",
        "attention_mask": "[tokens.attention_mask]",
        "token_type_ids": "[tokens.type_ids]",
    }
    yield "feed = {" + ", ".join(f'"{name}": {arrays[name]}' for name in model.inputs) + "}"

    path = folder / model.files[0]
    if manifest.spec.has_token_heads:
        yield _run_all(format_name, path, model.outputs)
    elif pairs:
        yield _run(format_name, path, "logits", 0)
        yield SCORE
    elif dense_head(manifest.spec.to_spec()).in_graph:
        yield _run(format_name, path, "embeddings", model.outputs.index(SENTENCE_EMBEDDING))
        yield "embedding = embeddings[0]"
    else:
        yield _run(format_name, path, "states", 0)
        yield _vector(manifest)


def _takes_a_text(model: "Model") -> bool:
    """Return whether a model takes one text of any length by the names of its inputs, and returns states."""
    from bge_export.formats.torchscript import PLAIN_FILE

    fixed = model.options.get("static_shape") is not None
    pooled = model.target.startswith("torchscript") and model.files[0] != PLAIN_FILE
    return not fixed and not pooled and model.target.partition("-")[0] in INSTALLS


def _module(format_name: str) -> str:
    return {"onnx": "onnxruntime"}.get(format_name, format_name)


def _run(format_name: str, path: Path, name: str, output: int) -> str:
    """Return the line that runs a model on `feed`, and gives one of its outputs a name."""
    if format_name == "onnx":
        return f'{name} = onnxruntime.InferenceSession("{path}").run(None, feed)[{output}]'
    if format_name == "openvino":
        settings = '"CPU", {"INFERENCE_PRECISION_HINT": "f32"}'
        arrays = "{name: np.array(one) for name, one in feed.items()}"
        return f'{name} = openvino.Core().compile_model("{path}", {settings})({arrays})[{output}]'

    given = f'torch.jit.load("{path}")(*map(torch.tensor, feed.values()))'
    return f"{name} = {given}; {name} = ({name}[{output}] if isinstance({name}, tuple) else {name}).numpy()"


def _run_all(format_name: str, path: Path, outputs: Sequence[str]) -> str:
    """Return the line that runs a model on `feed`, and names each of its outputs for the one text."""
    names = ", ".join(outputs)
    if format_name == "onnx":
        given = f'onnxruntime.InferenceSession("{path}").run(None, feed)'
    elif format_name == "openvino":
        settings = '"CPU", {"INFERENCE_PRECISION_HINT": "f32"}'
        arrays = "{name: np.array(one) for name, one in feed.items()}"
        given = f'openvino.Core().compile_model("{path}", {settings})({arrays}).values()'
    else:
        given = f'torch.jit.load("{path}")(*map(torch.tensor, feed.values()))'
        given = given if len(outputs) > 1 else f"[{given}]"
    return f"{names}{',' * (len(outputs) == 1)} = (one[0] for one in {given})"


def _vector(manifest: "Manifest") -> str:
    """Return the line that makes the embedding of `states`."""
    head = manifest.spec.dense
    pooled = POOLED[head.pooling]
    return f"embedding = {pooled} / np.linalg.norm({pooled})" if head.normalize else f"embedding = {pooled}"
