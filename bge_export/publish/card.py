"""Renders the model card of any bundle from its manifest and report: files, parity, examples that run, and the gaps."""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from bge_export.bundle.integrity import CARD, GENERATED_CARD
from bge_export.bundle.manifest import Manifest, Model, read_manifest
from bge_export.contracts import SENTENCE_EMBEDDING, Promise
from bge_export.heads.dense import dense_head
from bge_export.javascript.clients import CLIENTS, FILES
from bge_export.parity.figures import difference_figure, escaped
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.orders import orders, spread
from bge_export.parity.report import ParityReport
from bge_export.publish.facts import REPOSITORY, CardFacts
from bge_export.publish.figures import gaps, lane_lines, losses, machines

ORDER = ("q8", "fp16", "fp32")
"""Preferred dtype of the examples: the smallest file that every client and host of the examples loads. If the folder
has none of these, the examples use a dtype that version 2.5 has no name for, and the example for 2.5 is left out."""
PLAIN = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)
"""Text that YAML reads as itself, with the exception of a few words that `_yaml` quotes."""
FORMATS = ("onnx", "openvino", "torchscript")
"""Formats with an example in Python, in the order of the card."""


def write_card(root: Path, facts: CardFacts, report: ParityReport | None, policy: ThresholdPolicy) -> None:
    """Write `README.md` into a folder.

    Args:
        root: the folder, with its manifest.
        facts: what the card says besides.
        report: the figures; if None, the card says that nothing was measured.
        policy: the limits by which the report passed. Losses of stress texts beyond the everyday limit are listed.
    """
    text = card_text(root, read_manifest(root), facts, report, policy)
    (root / CARD).write_text(text, "utf-8")


def card_text(
    root: Path, manifest: Manifest, facts: CardFacts, report: ParityReport | None, policy: ThresholdPolicy
) -> str:
    """Return the card of a folder with this manifest and report; the folder is only asked for sizes."""
    models = sorted(manifest.models, key=lambda model: model.target)
    dtypes = {FILES[model.files[0]] for model in models if model.files[0] in FILES}
    source = manifest.source

    text = (
        _environment()
        .get_template("card.md.j2")
        .render(
            **_values(manifest.promise.promise(), facts.id, dtypes),
            **_python(models),
            facts=facts,
            source=escaped(source.id),
            base=source.id if REPOSITORY.fullmatch(source.id) else None,
            manifest=manifest,
            library=_library(manifest, facts),
            tags=_tags(manifest, facts),
            files=_file_lines(root, models, clients=facts.clients),
            targets=[model.target for model in models],
            lines=[line for model in models for line in lane_lines(model.files[0], report)] if report else [],
            **_measured_pairs(report),
            losses={model.files[0]: losses(model.files[0], report, policy) for model in models} if report else {},
            report=report,
            gaps=gaps(report, policy) if report else [],
            machines=machines(report) if report else [],
            tools={name: value for model in models for name, value in model.tools.items()},
            version_of_tool=version("bge-export"),
        )
    )
    return f"{text.rstrip()}\n\n{facts.record}\n{GENERATED_CARD}\n"


def examples(promise: Promise, repository: str, dtypes: set[str]) -> str:
    """Return only the examples in JavaScript, for a folder that has files of these dtypes."""
    return _environment().get_template("examples.md.j2").render(**_values(promise, repository, dtypes))


def _values(promise: Promise, repository: str, dtypes: set[str]) -> Mapping[str, object]:
    """Return the template variables that describe what is answered, and the dtype of the examples."""
    dtype = next((name for name in ORDER if name in dtypes), min(dtypes, default="fp32"))
    shared = {"id": repository, "pairs": promise.of_pairs, "max_tokens": promise.reads.max_tokens, "dtype": dtype}
    if promise.of_pairs:
        return {**shared, "prompts": {}}

    head = dense_head(promise)
    return {
        **shared,
        "dim": head.dim,
        "normalize": str(head.normalize).lower(),
        "prompts": promise.reads.prompts,
        "query_prefix": promise.reads.prompts.get("query", ""),
        "pooling": {"last": "last_token"}.get(head.pooling, head.pooling),
        "quantized": str("q8" in dtypes).lower(),
        "oldest": not dtypes or not {"q8", "fp32"}.isdisjoint(dtypes),
        "version": {4: CLIENTS["4"].version, 3: CLIENTS["3"].version, 2: CLIENTS["2.5"].version},
    }


def _measured_pairs(report: ParityReport | None) -> Mapping[str, object]:
    """Return the template variables of a reranker's report: the number of queries, and the spread of the logits."""
    scores = [lane.scores for lane in report.lanes if lane.scores] if report else []
    return {
        "queries": len(orders(scores[0])) if scores else 0,
        "spread": difference_figure(spread(scores[0])) if scores else "none",
    }


def _python(models: Sequence[Model]) -> Mapping[str, object]:
    """Return the model file of each format for the examples in Python: the most exact one, of any shape."""
    chosen: dict[str, Model] = {}
    for model in models:
        name, _, precision = model.target.partition("-")
        if name in FORMATS and not model.options.get("static_shape") and (precision == "fp32" or name not in chosen):
            chosen[name] = model

    return {"chosen": {name: chosen.get(name) for name in FORMATS}, "embedding": SENTENCE_EMBEDDING}


def _file_lines(root: Path, models: Sequence[Model], *, clients: bool) -> Sequence[str]:
    """Return the table of model files, for Transformers.js with the name by which it loads each."""
    rows = [["target", "file", "size"], ["---", "---", "---"]]
    for model in models:
        size = sum((root / name).stat().st_size for name in model.files)
        rows.append([model.target, f"`{model.files[0]}`", f"{size / 1e6:.1f} MB"])

    if clients:
        dtypes = [FILES.get(model.files[0]) for model in models]
        last = ["`dtype`", "---", *(f"`{dtype}`" if dtype else "none" for dtype in dtypes)]
        rows = [[*row, cell] for row, cell in zip(rows, last, strict=True)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _library(manifest: Manifest, facts: CardFacts) -> str | None:
    """Return the library whose widget the Hub shows."""
    if facts.clients:
        return "transformers.js"
    if manifest.weights:
        return "sentence-transformers"
    formats = {model.target.partition("-")[0] for model in manifest.models}
    return next((name for name in ("onnx", "openvino") if name in formats), None)


def _tags(manifest: Manifest, facts: CardFacts) -> Sequence[str]:
    """Return the tags by which the Hub finds the folder."""
    formats = sorted({model.target.partition("-")[0] for model in manifest.models})
    clients = ["transformers.js"] if facts.clients else []
    libraries = ["sentence-transformers"] if manifest.weights or "onnx" in formats else []
    tasks = ["feature-extraction", "sentence-similarity"]
    if manifest.promise.of_pairs:
        tasks = ["text-ranking", "reranker", "cross-encoder"]
    return [*clients, *libraries, *formats, *tasks, "bge-export"]


def _yaml(text: str) -> str:
    """Return a text as YAML reads it back."""
    words = {"yes", "no", "true", "false", "null", "on", "off", "y", "n"}
    return text if PLAIN.fullmatch(text) and text.lower() not in words else json.dumps(text)


def _code(text: str) -> str:
    """Return a text as code in a cell of a Markdown table, with visible spaces at its ends."""
    quoted = json.dumps(text, ensure_ascii=False).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", quoted)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {quoted} {fence}" if longest else f"`{quoted}`"


def _environment() -> Environment:
    """Return the template environment; the output is Markdown about a checkpoint whose export passed the gate."""
    environment = Environment(
        loader=PackageLoader("bge_export.publish"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    environment.filters |= {"yaml": _yaml, "code": _code}
    return environment
