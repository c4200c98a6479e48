"""The last lines of an export: proven and refused targets, their size and worst figures, and the next step."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.cli.loading import loading_lines

if TYPE_CHECKING:
    from bge_export.commands import Exported
    from bge_export.parity.gate.verdict import Verdict
    from bge_export.parity.report import Lane, ParityReport


def summary(exported: "Exported") -> Iterator[str]:
    """Yield the lines; none for an export that was not checked."""
    proof = exported.proof
    if proof is None:
        return
    if proof.verdict.passed:
        yield f"{exported.folder}: proven."
        return

    for folder, word in ((exported.folder, "proven"), (exported.refused, "refused")):
        if folder is None or (word == "proven" and folder == exported.refused):
            continue

        described = _described(proof.report, folder)
        if word == "proven":
            yield f"{folder}: proven: {', '.join(described.values())}."
        else:
            yield f"{folder}: refused: {_refused_first(described, proof.verdict)}; left here to look at."

    if exported.accepting is not None:
        again = "" if exported.refused == exported.folder else " --overwrite"
        yield (
            "To accept what rounding loses there, knowingly, give this command and the gate these limits: "
            f"--thresholds {exported.accepting}{again and f' (and this command{again})'}"
        )


def next_steps(exported: "Exported") -> Iterator[str]:
    """Yield what to do with a proven folder: the next commands, and the lines that load it."""
    if exported.proof is None or exported.folder == exported.refused:
        return

    folder = exported.folder
    yield f"\nNext: bge-export inspect {folder} (what it holds), bge-export gate {folder} (judge again)."

    lines = list(loading_lines(folder))
    if lines:
        yield "Load it in Python:\n" + "\n".join(f"    {line}" for line in lines)


def _refused_first(described: Mapping[str, str], verdict: "Verdict") -> str:
    """Return the targets that a refusal names, then those that lie beside them; all of them if it names none."""
    named = {failure.target for failure in verdict.failures}
    refused = [text for target, text in described.items() if target in named]
    beside = [text for target, text in described.items() if target not in named]
    if not refused or not beside:
        return ", ".join([*refused, *beside])

    return f"{', '.join(refused)}, beside {', '.join(beside)}"


def _described(report: "ParityReport", folder: Path) -> dict[str, str]:
    """Return target -> its size and the worst figures in any lane, of a folder."""
    from bge_export.bundle.manifest import read_manifest
    from bge_export.parity.figures import cosine_figure
    from bge_export.parity.worst import of_kind, smallest

    described = {}
    for model in read_manifest(folder).models:
        target = model.target
        lanes = [lane for lane in report.lanes if lane.target == target]
        rows = [row for lane in lanes for row in lane.rows]
        size = sum((folder / name).stat().st_size for name in model.files)
        worst = {"everyday": smallest(of_kind(rows, "everyday")), "stress": smallest(of_kind(rows, "stress"))}
        kept = [f"{kind} {cosine_figure(found.cosine)}" for kind, found in worst.items() if found is not None]
        kept += [*_scores(lanes), *_answers(lanes)]
        described[target] = f"{target} ({', '.join([f'{size / 1e6:.1f} MB', *kept])})"

    return described


def _answers(lanes: "Sequence[Lane]") -> list[str]:
    """Return the worst figure of each output with token weights or vectors of tokens."""
    from bge_export.parity.show.token_heads import answer_cells

    return [f"{lane.output}: {answer_cells(lane)[0]}" for lane in lanes if lane.weights or lane.vectors]


def _scores(lanes: "Sequence[Lane]") -> list[str]:
    """Return the worst logit and order of a reranker's target; nothing of an embedding model's."""
    from bge_export.parity.figures import difference_figure, least_figure
    from bge_export.parity.orders import worst_scores

    found = [worst for lane in lanes if (worst := worst_scores(lane.scores)) is not None]
    if not found:
        return []

    differences = [worst.difference for worst in found]
    taus = [worst.tau for worst in found]
    largest = None if None in differences else max(one for one in differences if one is not None)
    smallest = None if None in taus else min(one for one in taus if one is not None)
    return [f"logits within {difference_figure(largest)}", f"tau {least_figure(smallest)}"]
