"""The table of `docs/reference/consumers.md`, from the report of `scripts/consumers`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPORT = Path(__file__).resolve().parent / "consumers.json"
KINDS = ("documents", "edge cases", "queries")
OWN_REPORT = REPORT.with_name("own_libraries.json")
NEAR = 1e-5
"""The largest difference of a number that float32 arithmetic in another order makes."""


def table() -> str:
    """Return one row for each lane of each consumer."""
    report = json.loads(REPORT.read_text("utf-8"))
    counts = ", ".join(f"{count} {kind}" for kind, count in report["texts"].items())
    lines = [
        f"{counts}.",
        "",
        "| consumer | checkpoint | loaded | besides the folder | documents | edge cases | queries | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in report["consumers"].items():
        lines += _rows(name, found)
    return "\n".join(lines)


def own_table() -> str:
    """Return one row for each way to load a folder of each kind of model, as `lab/own_libraries.py` measured it."""
    lines = [
        "| model | library | class | runs | besides the folder | largest difference | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in json.loads(OWN_REPORT.read_text("utf-8")):
        setting = f"`{_cell(row['setting'])}`" if "=" in row["setting"] else row["setting"] or "nothing"
        difference = row.get("difference")
        figure = "error" if difference is None else f"{difference:.1e}" if difference else "0"
        said = "the same" if difference is not None and difference <= NEAR else "**other**"
        last = f"{said}; {_cell(row['error'])}" if difference is None else said
        cells = (row["kind"], row["library"], row["loaded"], row["backend"], setting, figure, last)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rows(name: str, found: dict[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{package} {version}" for package, version in found["versions"].items()) or name
    if "error" in found:
        yield f"| {versions} | {found['source']} | | | | | | {_cell(found['error'])} |"

    for lane in found["lanes"]:
        setting = f"`{_cell(lane['setting'])}`" if "=" in lane["setting"] else _cell(lane["setting"]) or "nothing"
        cosines = [lane.get("cosines", {}).get(kind, "") for kind in KINDS]
        figures = [_figure(cosine) if isinstance(cosine, float) else "error" if cosine else "" for cosine in cosines]
        notes = [lane["fault"]] if lane["fault"] and not lane["same"] else []
        notes += [lane["error"]] if "error" in lane else [one for one in cosines if isinstance(one, str)]
        if lane.get("norm_off", 0) > 1e-3:
            notes.append("not divided by the norm")
        good = "the same" if lane["target"].endswith("fp32") or not lane["target"] else "within the gate's limit"
        said = "**other**" if not lane["same"] else "" if notes else good
        last = "; ".join(filter(None, [said, *map(_cell, notes)]))
        yield f"| {' | '.join([versions, found['source'], lane['name'], setting, *figures, last])} |"


def _figure(cosine: float) -> str:
    """Return a cosine as people read it: 1 for all that float32 rounds to it."""
    return "1" if cosine > 0.9999995 else f"{cosine:.6f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
