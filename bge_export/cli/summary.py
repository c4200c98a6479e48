"""The last lines of an export: what is proven, what is refused, what each keeps of the checkpoint, and what to do."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bge_export.commands import Exported
    from bge_export.parity.report import ParityReport


def summary(exported: "Exported") -> Iterator[str]:
    """Yield the lines; none for an export that was not checked."""
    proof = exported.proof
    if proof is None:
        return
    if proof.verdict.passed:
        yield f"{exported.place}: proven."
        return

    refused = {failure.target for failure in proof.verdict.failures}
    if "" in refused or exported.refused == exported.place:
        yield f"{exported.place}: refused; the folder is left here to look at."
        folders = [exported.place]
    else:
        proven = [target for target in proof.report.targets if target not in refused]
        yield f"{exported.place}: proven: {', '.join(_described(proof.report, proven, exported.place))}."
        folders = [exported.refused] if exported.refused is not None else []
    for folder in folders:
        named = sorted(target for target in refused if target)
        if named:
            yield f"{folder}: refused: {', '.join(_described(proof.report, named, folder))}; left here to look at."

    if exported.accepting is not None:
        yield (
            "To accept what rounding loses there, knowingly, give this command and the gate these limits: "
            f"--thresholds {exported.accepting}"
        )


def _described(report: "ParityReport", targets: list[str], folder: Path) -> Iterator[str]:
    """Yield targets with their size and the smallest cosines of everyday and of stress texts in any lane."""
    from bge_export.manifest import read_manifest
    from bge_export.parity.figures import cosine_figure
    from bge_export.parity.worst import of_kind, smallest

    files = {model.target: model.files for model in read_manifest(folder).models}
    for target in targets:
        rows = [row for lane in report.lanes if lane.target == target for row in lane.rows]
        size = sum((folder / name).stat().st_size for name in files.get(target, ()))
        worst = {"everyday": smallest(of_kind(rows, "everyday")), "stress": smallest(of_kind(rows, "stress"))}
        kept = [f"{kind} {cosine_figure(found.cosine)}" for kind, found in worst.items() if found is not None]
        yield f"{target} ({', '.join([f'{size / 1e6:.1f} MB', *kept])})"
