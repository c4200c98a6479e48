"""Writes the model card of a Transformers.js folder: its files, measured parity, and examples that run correctly."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from bge_export.bundle.foreign import is_generated_card
from bge_export.bundle.integrity import CARD, GENERATED_CARD
from bge_export.contracts import Artifact, Checkpoint, Promise
from bge_export.heads.dense import dense_head
from bge_export.javascript.clients import CLIENTS, FILES
from bge_export.parity.figures import cosine_figure, difference_figure
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.report import Lane, ParityReport
from bge_export.parity.worst import of_kind, smallest
from bge_export.texts.corpus import Kind, builtin_corpus

ORDER = ("q8", "fp16", "fp32")
"""Preferred dtype of the examples: the smallest file that every client and host of the examples loads. If the folder
has none of these, the examples use a dtype that version 2.5 has no name for, and the example for 2.5 is left out."""


@dataclass(frozen=True)
class CardFacts:
    """Facts of a card besides the promise.

    Attributes:
        id: the repository that the examples name.
        source: the checkpoint.
        license: the checkpoint's licence, if known.
        weights: whether the PyTorch weights are in the folder.
    """

    id: str
    source: str
    license: str | None
    weights: bool


def write_card(
    root: Path,
    checkpoint: Checkpoint,
    artifacts: Sequence[Artifact],
    facts: CardFacts,
    report: ParityReport | None,
    policy: ThresholdPolicy,
) -> None:
    """Write `README.md` into a folder of artifacts.

    Args:
        root: the folder.
        checkpoint: the checkpoint that the artifacts were exported from.
        artifacts: all artifacts of the folder; those that Transformers.js has a name for are listed.
        facts: further facts of the card.
        report: the figures; if None, the card says that nothing was measured.
        policy: the limits by which the report passed. Losses of stress texts beyond the everyday limit are listed.
    """
    models = {item.model: item for item in artifacts if item.model in FILES}
    lanes = [] if report is None else [lane for lane in report.lanes if lane.measured and lane.model in models]

    files = [
        {
            "name": model,
            "dtype": FILES[model],
            "megabytes": f"{(root / model).stat().st_size / 1e6:.1f}",
            "everyday": _smallest(model, lanes, "everyday"),
            "stress": _smallest(model, lanes, "stress"),
            "losses": _losses(model, lanes, policy),
        }
        for model in sorted(models)
    ]

    text = (
        _environment()
        .get_template("card.md.j2")
        .render(
            **_values(checkpoint.promise, facts.id, {FILES[model] for model in models}),
            source=facts.source,
            license=facts.license,
            weights=facts.weights,
            files=files,
            measured=bool(lanes),
            texts=0 if report is None else report.texts.count,
            max_tokens=checkpoint.promise.reads.max_tokens,
            runtimes=", ".join(dict.fromkeys(f"{lane.runtime}:{lane.device}" for lane in lanes)),
        )
    )

    (root / CARD).write_text(f"{text.rstrip()}\n\n{GENERATED_CARD}\n", "utf-8")


def other_figures(root: Path, models: Iterable[str], report: ParityReport) -> tuple[str, ...]:
    """Return the model files whose figures in a folder's generated card are not those of a report.

    A card that the user wrote, or a folder without one, gives none.

    Args:
        root: the folder.
        models: its model files.
        report: the report.
    """
    if not is_generated_card(root / CARD):
        return ()

    lines = (root / CARD).read_text("utf-8", errors="replace").splitlines()
    lanes = [lane for lane in report.lanes if lane.measured]
    other = []
    for model in sorted(name for name in models if name in FILES):
        figures = f"| {_smallest(model, lanes, 'everyday')} | {_smallest(model, lanes, 'stress')} |"
        own = [line for line in lines if line.startswith(f"| `{model}` |")]
        if len(own) != 1 or not own[0].endswith(figures):
            other.append(model)

    return tuple(other)


def examples(promise: Promise, repository: str, dtypes: set[str]) -> str:
    """Return only the examples, for a folder that has files of these dtypes."""
    return _environment().get_template("examples.md.j2").render(**_values(promise, repository, dtypes))


def _values(promise: Promise, repository: str, dtypes: set[str]) -> Mapping[str, object]:
    """Return the template variables that describe the embedding and the dtype of the examples."""
    head = dense_head(promise)
    dtype = next((name for name in ORDER if name in dtypes), min(dtypes, default="fp32"))

    return {
        "id": repository,
        "dim": head.dim,
        "normalize": str(head.normalize).lower(),
        "query_prefix": promise.reads.prompts.get("query", ""),
        "pooling": {"last": "last_token"}.get(head.pooling, head.pooling),
        "dtype": dtype,
        "quantized": str("q8" in dtypes).lower(),
        "oldest": not dtypes or not {"q8", "fp32"}.isdisjoint(dtypes),
        "version": {4: CLIENTS["4"].version, 3: CLIENTS["3"].version, 2: CLIENTS["2.5"].version},
    }


def _smallest(model: str, lanes: Sequence[Lane], kind: Kind) -> str:
    """Return the smallest cosine of a file's texts of one kind, over all lanes."""
    least = smallest(of_kind([row for lane in lanes if lane.model == model for row in lane.rows], kind))
    return cosine_figure(least.cosine if least else None)


def _losses(model: str, lanes: Sequence[Lane], policy: ThresholdPolicy) -> Sequence[str]:
    """Return the loss of a file's stress texts by tag, largest first, if it exceeds the limit of everyday texts."""
    tags = {text.id: text.tag for text in builtin_corpus().texts}
    least: dict[str, float] = {}

    for lane in lanes:
        limits = policy.limits_for(lane.target, lane.runtime, lane.device)
        if lane.model != model or limits is None:
            continue

        for row in of_kind(lane.rows, "stress"):
            if row.cosine is not None and row.cosine < limits.min_cosine:
                tag = tags.get(row.id) or row.id
                least[tag] = min(row.cosine, least.get(tag, row.cosine))

    ordered = sorted(least.items(), key=lambda item: item[1])
    return [f"{difference_figure(1 - cosine)} on {tag} texts" for tag, cosine in ordered]


def _environment() -> Environment:
    """Return the template environment; the output is Markdown about a checkpoint whose export passed the gate."""
    return Environment(
        loader=PackageLoader("bge_export.publish"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
