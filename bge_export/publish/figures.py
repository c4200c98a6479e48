"""The figures of a card as lines of its tables: what the gate compares is what the card shows."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bge_export.bundle.foreign import is_generated_card
from bge_export.bundle.integrity import CARD
from bge_export.parity.figures import cosine_figure, difference_figure, escaped, least_figure
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.orders import spread, worst_scores
from bge_export.parity.report import Lane, ParityReport
from bge_export.parity.show.token_heads import answer_cells
from bge_export.parity.worst import of_kind, worst_of
from bge_export.texts.corpus import builtin_corpus


def lane_lines(model: str, report: ParityReport) -> Sequence[str]:
    """Return the lines of the parity table about one model file: one for each runtime and device that measured it."""
    lanes = [lane for lane in report.lanes if lane.measured and lane.model == model]
    return [_line(lane) for lane in sorted(lanes, key=lambda lane: (lane.runtime, lane.device, lane.output, lane.run))]


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
    return tuple(
        model
        for model in sorted(models)
        if [line for line in lines if line.startswith(f"| `{model}` |")] != list(lane_lines(model, report))
    )


def losses(model: str, report: ParityReport, policy: ThresholdPolicy) -> Sequence[str]:
    """Return the loss of a file's stress texts by tag, largest first, if it exceeds the limit of everyday texts."""
    tags = {text.id: text.tag for text in builtin_corpus().texts}
    least: dict[str, float] = {}

    for lane in report.lanes:
        limits = policy.limits_for(lane.target, lane.runtime, lane.device)
        if not lane.measured or lane.model != model or limits is None:
            continue

        for row in of_kind(lane.rows, "stress"):
            if row.cosine is not None and row.cosine < limits.min_cosine:
                tag = tags.get(row.id) or row.id
                least[tag] = min(row.cosine, least.get(tag, row.cosine))

    ordered = sorted(least.items(), key=lambda item: item[1])
    return [f"{difference_figure(1 - cosine)} on {tag} texts" for tag, cosine in ordered]


def gaps(report: ParityReport, policy: ThresholdPolicy) -> Sequence[str]:
    """Return what a report does not prove by the limits that come with bge-export, one sentence each."""
    reasons: dict[str, dict[str, None]] = {}
    for lane in report.lanes:
        if not lane.measured:
            reason = escaped(lane.unavailable or lane.failed or "no rows")
            reasons.setdefault(f"{lane.runtime}:{lane.device}: {reason}", {})[lane.target] = None

    missing = [f"Not measured in {where} ({', '.join(targets)})." for where, targets in reasons.items()]
    if "file" in report.references:
        missing.append("Some lanes were measured against vectors from a file, not against the checkpoint itself.")
    if policy.digest is not None:
        missing.append(f"It passed by the publisher's own limits (sha256 {policy.digest}), not by those of bge-export.")
    return missing


def machines(report: ParityReport) -> Sequence[Mapping[str, str]]:
    """Return the machines that measured, each once."""
    known = {tuple(sorted(run.environment.items())) for run in report.runs.values()}
    return [{key: escaped(value) for key, value in one} for one in sorted(known)]


def _line(lane: Lane) -> str:
    """Return one line of the parity table: the worst figures of a lane, never rounded towards better."""
    where = f"{lane.runtime}:{lane.device}"
    if lane.scores:
        return f"| `{lane.model}` | {where} | {lane.output} | {' | '.join(_score_figures(lane))} |"

    if lane.spec.has_token_heads:
        return f"| `{lane.model}` | {where} | {lane.output} | {' | '.join(answer_cells(lane))} |"

    worst = worst_of(lane.rows)
    everyday, stress = (None, None) if worst is None else (worst.everyday, worst.stress)
    figures = [
        cosine_figure(everyday.cosine if everyday else None),
        cosine_figure(stress.cosine if stress else None),
        cosine_figure(worst.batch_cosine if worst else None),
        difference_figure(worst.max_abs if worst else None),
    ]
    return f"| `{lane.model}` | {where} | {lane.output} | {' | '.join(figures)} |"


def _score_figures(lane: Lane) -> Sequence[str]:
    """Return the worst figures of a reranker's lane."""
    worst, whole = worst_scores(lane.scores), spread(lane.scores)
    if worst is None:
        return ("none",) * 5

    share = None if worst.difference is None or not whole else worst.difference / whole
    return (
        difference_figure(worst.difference),
        difference_figure(share),
        difference_figure(worst.batch_difference),
        least_figure(worst.tau),
        least_figure(worst.top),
    )
