"""Renders folders, tried variants, layer drift and this machine for the terminal (`inspect`, `doctor`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from bge_export.bundle.manifest import Manifest
from bge_export.contracts import PromptOrigin
from bge_export.formats import GraphFacts
from bge_export.heads.dense import dense_head
from bge_export.inspection.bisect import Drift
from bge_export.inspection.doctor import MachineFacts
from bge_export.inspection.folder import FolderFacts
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.saturation import PairFacts

PROMPT_USES = ("query", "document")
PROMPT_ORIGINS: Mapping[PromptOrigin, str] = {
    "checkpoint": "declared by the checkpoint",
    "published": "published by its authors",
    "given": "as the export was told",
}


def render_folder(facts: FolderFacts, verdict: str = "") -> RenderableType:
    """Return the description of a folder of artifacts, and the gate's verdict on it."""
    parts: list[RenderableType] = [] if facts.manifest is None else [_manifest(facts.manifest, verdict)]
    models = (_pairs({"file": model.path, **_saturation(model.pairs)}) for model in facts.models if model.pairs.weights)
    return Group(*parts, *(_graph(graph) for graph in facts.graphs), *models)


def render_frontier(target: str, steps: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of variants that were tried for an 8-bit artifact, in the order of trial."""
    table = Table(
        "activations with residual",
        "weights with residual",
        "predicted 1 - cosine",
        "everyday: smallest",
        "mean",
        "stress: smallest",
        "ms, 1x64",
        "MB",
        title=f"{target}: variants tried on probe texts",
        title_justify="left",
    )

    for step in steps:
        table.add_row(
            f"{step['precise']} points",
            f"{step['finer']} points",
            f"{step['predicted']:.1e}",
            cosine_figure(step["smallest"]),
            cosine_figure(step["mean"]),
            cosine_figure(step["smallest_stress"]),
            f"{step['milliseconds']:.1f}",
            f"{step['size_bytes'] / 1e6:.1f}",
        )
    return table


def render_machine(facts: MachineFacts) -> RenderableType:
    """Return the description of a machine and of what it can run."""
    machine = _pairs(
        {
            "system": facts.system,
            "processor": f"{facts.processor}, {facts.cores} cores, {' '.join(facts.instructions) or 'nothing special'}",
            "python": facts.python,
        }
    )

    libraries = Table("library", "version", "to install it", title="Libraries", title_justify="left")
    for library in facts.libraries:
        missing = library.version is None
        libraries.add_row(library.name, library.version or "missing", escape(library.install) if missing else "")

    devices = Table("runtime", "device", "can run", title="Runtimes", title_justify="left")
    for device in facts.devices:
        devices.add_row(device.runtime, device.device, escape(device.unavailable or "yes"))

    return Group(machine, libraries, devices)


def render_drift(drift: Drift) -> RenderableType:
    """Return the table of layers, and the name of the first one outside the limit."""
    table = Table("layer", "smallest cosine", "at token", "largest difference", box=None, pad_edge=False)
    for layer in drift.layers:
        mark = "" if layer.within else "  outside the limit"
        table.add_row(
            layer.layer + mark, cosine_figure(layer.cosine), str(layer.position), difference_figure(layer.max_abs)
        )

    first = drift.first
    verdict = f"every layer is within {drift.limit}" if first is None else f"drifts first at {first.layer}"
    return Group(table, f"{drift.target}, {drift.tokens} tokens: {verdict}.")


def _manifest(manifest: Manifest, verdict: str) -> RenderableType:
    source = manifest.source
    revision = f" at {source.revision}" if source.revision else ""
    untested = "" if source.tested else " (not in the tested list)"
    checked = "part of the export" if manifest.checked else "left out (--no-check)"
    tools = dict(item for model in manifest.models for item in model.tools.items())

    return _pairs(
        {
            "made of": f"{source.id}{revision}, {source.model_type}{untested}, digest {source.digest[:12]}",
            **({"weights from pickles": ", ".join(source.pickles)} if source.pickles else {}),
            **({"adapter": source.adapter} if source.adapter else {}),
            **_answers(manifest),
            **_padding(manifest),
            "models": ", ".join(model.target for model in manifest.models),
            "files": f"{len(manifest.files)}, every digest verified",
            "made with": ", ".join(f"{name} {number}" for name, number in tools.items()),
            "check": checked,
            "verdict": verdict,
        }
    )


def _answers(manifest: Manifest) -> dict[str, str]:
    """Return what the models give, of inputs of which length, and what precedes texts."""
    inputs = manifest.spec.inputs
    if manifest.spec.is_reranker:
        return {"score": f"one logit a pair of query and text, up to {inputs.max_tokens} tokens together"}

    if manifest.spec.has_token_heads:
        return {**_token_heads(manifest), **_prefixes(manifest)}

    head = dense_head(manifest.spec.to_spec())
    normalized = "normalised" if head.normalize else "not normalised"
    steps = [f"{head.pooling} pooling", *map(str, head.layers), normalized]
    vector = f"{head.dim} dimensions, {', '.join(steps)}"
    return {"embedding": f"{vector}, up to {inputs.max_tokens} tokens", **_prefixes(manifest)}


def _token_heads(manifest: Manifest) -> dict[str, str]:
    """Return what each head gives, of a model with token weights or vectors of tokens."""
    heads, most = manifest.spec.heads, f"up to {manifest.spec.inputs.max_tokens} tokens"
    found = {}
    if heads.dense is not None:
        pooled = f"[B, {heads.dense.dim}], {heads.dense.pooling} pooling, normalised"
        found["dense_vecs"] = f"one vector a text, {pooled}, {most}"
    if heads.sparse is not None and heads.sparse.per == "token":
        left = ", ".join(map(str, heads.sparse.unused))
        found["sparse_weights"] = f"one weight a token, [B, S]; keep the largest of each id, and none of the ids {left}"
    elif heads.sparse is not None:
        found["sparse_embedding"] = f"one weight a token of the vocabulary, [B, {heads.sparse.vocabulary}], {most}"

    if heads.multi_vector is not None:
        width, skipped = heads.multi_vector.dim, heads.multi_vector.skipped
        shape = f"[B, S - {skipped}, {width}], without the first token" if skipped else f"[B, S, {width}]"
        name = "colbert_vecs" if heads.dense is not None else "token_embeddings"
        found[name] = f"one vector a token, {shape}, {'' if heads.multi_vector.normalize else 'not '}normalised, {most}"
    return found


def _padding(manifest: Manifest) -> dict[str, str]:
    """Return where batches are padded, if the checkpoint's own tokenizer pads on the left."""
    if manifest.source.padding_side == "right":
        return {}
    if manifest.spec.only_dense and manifest.spec.dense.pooling == "last":
        return {"padding": "on the left, as the checkpoint's tokenizer; the last token is found on either side"}
    return {"padding": "on the right; the checkpoint's tokenizer pads on the left"}


def _prefixes(manifest: Manifest) -> dict[str, str]:
    """Return what precedes queries and documents, and where it comes from."""
    prompts, origin = manifest.spec.inputs.prompts, PROMPT_ORIGINS[manifest.source.prompts_from]
    if not prompts:
        return {"query prefix": f"none, {origin}" if manifest.source.prompts_from == "given" else "none declared"}

    return {f"{use} prefix": f"{prompts[use]!r}, {origin}" if prompts.get(use) else "none" for use in PROMPT_USES}


def _graph(graph: GraphFacts) -> RenderableType:
    return _pairs(
        {
            "file": f"{graph.path}, {graph.size_bytes / 1e6:.1f} MB" + (" and external data" * graph.external_data),
            "opset": f"{graph.opset}, IR {graph.ir_version}, written by {graph.producer or 'an unnamed tool'}",
            "inputs": "; ".join(graph.inputs),
            "outputs": "; ".join(graph.outputs),
            "weights": ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in graph.weights.items()),
            "operators": ", ".join(f"{name} {count}" for name, count in graph.operators.items()),
            **_saturation(graph.pairs),
        }
    )


def _saturation(pairs: PairFacts) -> dict[str, str]:
    """Return whether int8 weights satisfy the saturation constraint (same vectors on any CPU); empty without int8."""
    if not pairs.weights:
        return {}

    checked = f"{pairs.pairs} pairs of {pairs.weights} int8 weights"
    if not pairs.saturating:
        return {"saturation": f"none of {checked} can saturate"}

    first = f"first in {pairs.first} ({pairs.first_saturating})"
    return {
        "saturation": f"{pairs.saturating} of {checked} can saturate, {first}: other vectors on processors without VNNI"
    }


def _pairs(values: Mapping[str, str]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in values.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    table.add_row("")
    return table
