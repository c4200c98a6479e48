"""Renders the result of `check` for the terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bge_export.compatibility.findings import FileCheck, FolderCheck


def render_check(check: FolderCheck, gate: str | None) -> RenderableType:
    """Return the table of files and targets, every finding, the verdict, and the gate's verdict if there is one."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("target", "file", "MB", "state", "peak MiB", "first s", "first CPU s", "next s"):
        table.add_column(column, justify="right" if column in ("MB", "peak MiB") else "left", overflow="fold")

    reasons = []
    for one in check.files:
        table.add_row(*_cells(one))
        where = f"{one.target} {one.file or 'folder'}"
        reasons += [Text(f"{one.state} {where}: {finding}") for finding in one.findings]
        reasons += [Text(f"to set in {where}: {advice}") for advice in one.advice]

    verdict = f"REFUSED: {', '.join(check.refused)}" if check.refused else "PASSED: every target has a file that fits."
    lines = [Text(verdict, style="bold")]
    if gate is not None:
        lines.append(Text(f"Are its embeddings right? The gate: {gate}"))

    return Group(table, *([Text("")] if reasons else []), *reasons, Text(""), *lines)


def _cells(one: FileCheck) -> tuple[str, ...]:
    size = f"{one.size_bytes / 1e6:.1f}" if one.file else ""
    if one.measured is None:
        return (one.target, one.file or "folder", size, one.state, "", "", "", "")

    figures = one.measured
    peak = "unknown" if figures.peak_bytes is None else f"{figures.peak_bytes / 2**20:.0f}"
    return (
        one.target,
        one.file,
        size,
        one.state,
        peak,
        f"{figures.cold_seconds:.2f}",
        f"{figures.cold_cpu_seconds:.2f}",
        f"{figures.warm_seconds:.3f}",
    )
