"""Render a report and its verdict as one HTML file, without network access or scripts. Nothing is judged here.

Texts come from untrusted files. Every value in the template is put on one line, its control and direction characters
are escaped, and the result is escaped for HTML. A content security policy keeps the page from loading anything.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from bge_export.files.single import refuse_path, written_whole
from bge_export.parity.figures import cosine_figure, difference_figure, escaped, least_figure
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.gate.verdict import Failure, Verdict
from bge_export.parity.measure.batches import SHAPES
from bge_export.parity.orders import orders
from bge_export.parity.report import Lane, ParityReport, RowParity, ScoreRow
from bge_export.parity.show import plots
from bge_export.parity.show.frontier import Frontier, panels
from bge_export.parity.show.render import as_json
from bge_export.parity.show.scores import SCORE_COLUMNS, score_cells
from bge_export.parity.show.token_heads import ANSWER_COLUMNS, answer_cells

OWN_PAGE = re.compile(rb'<meta name="generator" content="bge-export">')
"""Matches the tag that marks a page as written by this module."""

SHOWN = 5
"""Number of refusals by one rule in one lane that are visible; the others are folded."""

WORST = 8
"""Number of texts in a lane's list of the worst."""

SHAPE_NAMES = {
    "4": "4 texts in a random order",
    "16-sorted": "16 texts of like length, padded past the longest",
    "8-long": "8 texts, one of them the longest of all",
}


@dataclass(frozen=True)
class Group:
    """Refusals by one rule in one lane."""

    rule: str
    lane: str
    failures: Sequence[Failure]


@dataclass(frozen=True)
class Batches:
    """One batch shape in a lane: the number of texts in it, and the text that changed most."""

    name: str
    texts: int
    worst: str
    cosine: float | None


@dataclass(frozen=True)
class Section:
    """A lane as the page shows it; `facts` is the lane's object in the output of `--json`."""

    number: int
    lane: Lane
    facts: dict[str, Any]
    processor: str
    limits: Limits | None
    refused: frozenset[str]
    worst: Sequence[RowParity]
    batches: Sequence[Batches]

    @property
    def reason(self) -> list[str]:
        """Return the reason for missing rows, as lines."""
        return (self.lane.unavailable or self.lane.failed or "").splitlines()

    @property
    def without_cosine(self) -> int:
        """Return how many texts have an undefined cosine."""
        return sum(row.cosine is None for row in self.lane.rows)

    @property
    def stress(self) -> bool:
        """Return whether any row is a stress text."""
        return any(row.kind == "stress" for row in self.lane.rows)

    @property
    def at_floor(self) -> int:
        """Return how many texts have a 1 - cosine of 0 or less, which a log axis cannot show."""
        return sum(row.cosine is not None and plots.gap(row.cosine) <= 0 for row in self.lane.rows)


def render_html(
    report: ParityReport, verdict: Verdict, limits: ThresholdPolicy | None = None, frontiers: Sequence[Frontier] = ()
) -> str:
    """Return the page.

    Args:
        report: the facts.
        verdict: the gate's verdict on them.
        limits: the policy that the gate used; its limits are drawn into the plots.
        frontiers: the searches for int8 variants that the folder's manifest records.
    """
    facts = as_json(report, verdict)
    sections = [
        _section(number, lane, own, report, verdict, limits)
        for number, (lane, own) in enumerate(zip(report.lanes, facts["lanes"], strict=True), 1)
    ]
    # Unavailable lanes come last.
    sections.sort(key=lambda section: section.lane.unavailable is not None)

    groups: dict[tuple[str, str], list[Failure]] = defaultdict(list)
    for failure in verdict.failures:
        groups[failure.rule, failure.lane].append(failure)

    return _template().render(
        report=report,
        verdict=verdict,
        sections=sections,
        axis=_axis(report, sections),
        shown=SHOWN,
        groups=[Group(rule, lane, failures) for (rule, lane), failures in groups.items()],
        measured=sum(lane.measured for lane in report.lanes),
        absent=sum(lane.unavailable is not None and not lane.requested for lane in report.lanes),
        merged=len(report.runs) > 1,
        stress=any(section.stress for section in sections),
        frontiers=frontiers,
        data=_data({"verdict": facts, "report": report.model_dump(mode="json"), "frontiers": _records(frontiers)}),
    )


def refuse_page(path: Path) -> None:
    """Raise OutputError if the path holds anything except a page of this tool, or cannot be written."""
    refuse_path(path, "page", OWN_PAGE)


def write_html(
    path: Path,
    report: ParityReport,
    verdict: Verdict,
    limits: ThresholdPolicy | None = None,
    frontiers: Sequence[Frontier] = (),
) -> None:
    """Write the page that `render_html` returns.

    Raises:
        OutputError: the path holds something else by now.
    """
    refuse_page(path)
    with written_whole(path) as temporary:
        temporary.write_text(render_html(report, verdict, limits, frontiers), "utf-8")


def _section(
    number: int,
    lane: Lane,
    facts: dict[str, Any],
    report: ParityReport,
    verdict: Verdict,
    policy: ThresholdPolicy | None,
) -> Section:
    run = report.runs.get(lane.run)
    refused = {bad.row for bad in verdict.failures if bad.lane == lane.name and bad.row is not None}

    return Section(
        number=number,
        lane=lane,
        facts=facts,
        processor=run.environment.get("cpu", "unknown") if run else "unknown",
        refused=frozenset(refused),
        limits=policy.limits_for(lane.target, lane.runtime, lane.device) if policy else None,
        worst=sorted(lane.rows, key=plots.badness, reverse=True)[:WORST],
        batches=_batches(lane),
    )


def _worst_pairs(lane: Lane) -> Sequence[ScoreRow]:
    """Return the pairs whose logits are farthest from the checkpoint's; those that are not finite come first."""
    return sorted(lane.scores, key=lambda row: math.inf if row.difference is None else row.difference, reverse=True)[
        :WORST
    ]


def _batches(lane: Lane) -> list[Batches]:
    shapes = dict.fromkeys([*SHAPES, *(shape for row in lane.rows for shape in row.batch_cosine)])

    found = []
    for shape in shapes:
        values = [(row.batch_cosine[shape], row.id) for row in lane.rows if shape in row.batch_cosine]
        if values:
            cosine, worst = min(values, key=lambda pair: -2.0 if pair[0] is None else pair[0])
            found.append(Batches(SHAPE_NAMES.get(shape, shape), len(values), worst, cosine))

    return found


def _axis(report: ParityReport, sections: Sequence[Section]) -> plots.LogAxis:
    """Return one axis for all lanes, so that their plots can be compared."""
    gaps = [plots.gap(row.cosine) for lane in report.lanes for row in lane.rows if row.cosine is not None]
    lines = [line.at for one in sections if one.lane.rows for line in plots.limit_lines(one.limits)]
    return plots.LogAxis.over([*gaps, *lines])


def _template() -> Template:
    environment = Environment(
        autoescape=True,
        finalize=_line,
        loader=PackageLoader("bge_export.parity", "show"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    environment.filters.update(cosine=cosine_figure, figure=difference_figure, gap=_gap)
    environment.globals.update(
        plots=plots,
        panels=panels,
        score_columns=[column.replace("\n", " ") for column in SCORE_COLUMNS],
        score_cells=score_cells,
        answer_columns=list(ANSWER_COLUMNS),
        answer_cells=answer_cells,
        worst_pairs=_worst_pairs,
        orders=orders,
        least=least_figure,
    )
    return environment.get_template("report.html.j2")


def _line(value: object) -> object:
    """Return a text on one line; markup from the template itself is not changed."""
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _records(frontiers: Sequence[Frontier]) -> dict[str, list[dict[str, Any]]]:
    return {one.target: [variant.model_dump(mode="json") for variant in one.variants] for one in frontiers}


def _gap(cosine: float | None) -> str:
    """Return 1 - cosine, formatted for people."""
    return difference_figure(None if cosine is None else plots.gap(cosine))


def _data(value: object) -> Markup:
    """Return JSON that can neither close its script element nor open another one."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(safe)  # noqa: S704 - ASCII without <, > and &
