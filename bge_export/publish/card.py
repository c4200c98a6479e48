"""Renders the model card of any bundle from its manifest and report: files, parity, examples that run, and the gaps."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from bge_export.bundle.integrity import CARD, GENERATED_CARD
from bge_export.bundle.manifest import Manifest, Model, read_manifest
from bge_export.contracts import SENTENCE_EMBEDDING, ModelSpec
from bge_export.javascript.clients import FILES
from bge_export.parity.figures import difference_figure, escaped
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.orders import orders, spread
from bge_export.parity.report import ParityReport
from bge_export.publish.facts import REPOSITORY, CardFacts
from bge_export.publish.figures import gaps, lane_lines, losses, machines
from bge_export.publish.rendering import environment, values
from bge_export.publish.scores import model_index, score_lines

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
        environment()
        .get_template("card.md.j2")
        .render(
            **values(manifest.spec.to_spec(), facts.id, dtypes),
            **chosen_models(models),
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
            scores=score_lines(facts.scores),
            index=model_index(facts.id.rpartition("/")[2], facts.scores),
            tools={name: value for model in models for name, value in model.tools.items()},
            version_of_tool=version("bge-export"),
        )
    )
    return f"{text.rstrip()}\n\n{facts.record}\n{GENERATED_CARD}\n"


def examples(spec: ModelSpec, repository: str, dtypes: set[str]) -> str:
    """Return only the examples in JavaScript, for a folder that has files of these dtypes."""
    return environment().get_template("examples.md.j2").render(**values(spec, repository, dtypes))


def _measured_pairs(report: ParityReport | None) -> Mapping[str, object]:
    """Return the template variables of a reranker's report: the number of queries, and the spread of the logits."""
    scores = [lane.scores for lane in report.lanes if lane.scores] if report else []
    return {
        "queries": len(orders(scores[0])) if scores else 0,
        "spread": difference_figure(spread(scores[0])) if scores else "none",
    }


def chosen_models(models: Sequence[Model]) -> Mapping[str, object]:
    """Return the model file of each format for the examples in Python: the most exact one, of any shape."""
    chosen: dict[str, Model] = {}
    for model in models:
        name, _, precision = model.target.partition("-")
        if name in FORMATS and not model.options.get("static_shape") and (precision == "fp32" or name not in chosen):
            chosen[name] = model

    given = {name: chosen.get(name) for name in FORMATS}
    return {"chosen": {**given, "named": False}, "embedding": SENTENCE_EMBEDDING}


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
    loads = manifest.weights or ("onnx" in formats and not manifest.spec.has_token_heads)
    libraries = ["sentence-transformers"] if loads else []
    tasks = ["feature-extraction", "sentence-similarity"]
    if manifest.spec.is_reranker:
        tasks = ["text-ranking", "reranker", "cross-encoder"]
    elif manifest.spec.has_token_heads:
        tasks = ["feature-extraction", *sorted(manifest.spec.heads.kinds - {"dense"})]
    return [*clients, *libraries, *formats, *tasks, "bge-export"]
