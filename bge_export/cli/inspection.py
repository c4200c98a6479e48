"""The commands that inspect artifacts and the machine: `bisect`, `inspect` and `doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bge_export.cli.options import PASSED, REFUSED, Json, Revision, Thresholds
from bge_export.cli.output import out, print_json


def bisect(
    path: Annotated[Path, typer.Argument(metavar="MODEL_FILE", exists=True, help="For example out/onnx/model.onnx.")],
    reference: Annotated[str, typer.Option(help="The checkpoint it was made of: a Hub id or a folder.")],
    text: Annotated[str, typer.Option(help="The text on which it drifts.")],
    limit: Annotated[
        float | None, typer.Option(help="Smallest cosine of a token's state. [default: the target's min_cosine]")
    ] = None,
    revision: Revision = None,
    thresholds: Thresholds = None,
    as_json: Json = False,
) -> int:
    """Find the layer where an artifact drifts from its checkpoint. Exit status 1 if one leaves the limit."""
    from bge_export.commands import bisect_artifact
    from bge_export.inspection.render import render_drift

    drift = bisect_artifact(path, reference, text, revision=revision, limit=limit, thresholds=thresholds)

    if as_json:
        first = drift.first.layer if drift.first else None
        layers = [{**asdict(one), "cosine": one.cosine if one.cosine == one.cosine else None} for one in drift.layers]
        print_json({"target": drift.target, "limit": drift.limit, "first": first, "layers": layers})
    else:
        out().print(render_drift(drift))
    return REFUSED if drift.first else PASSED


def inspect(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", exists=True, help="A folder that bge-export wrote, or one model file."),
    ],
    as_json: Json = False,
) -> int:
    """Say what an artifact is: format, graph, weights, answers, origin. Its digests are verified."""
    from bge_export.commands import folder_verdict
    from bge_export.inspection.folder import inspect_path
    from bge_export.inspection.render import render_folder

    facts = inspect_path(path)
    verdict = "" if facts.manifest is None else folder_verdict(path)

    if as_json:
        manifest = None if facts.manifest is None else facts.manifest.model_dump(by_alias=True)
        graphs, models = ([asdict(one) for one in found] for found in (facts.graphs, facts.models))
        print_json({"manifest": manifest, "verdict": verdict, "graphs": graphs, "models": models})
    else:
        out().print(render_folder(facts, verdict))
    return PASSED


def doctor(as_json: Json = False) -> int:
    """Say what this machine can run, and the command that installs what is missing."""
    from bge_export.inspection.doctor import examine_machine
    from bge_export.inspection.render import render_machine

    facts = examine_machine()

    if as_json:
        print_json(asdict(facts))
    else:
        out().print(render_machine(facts))
    return PASSED
