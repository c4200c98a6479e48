"""Renders what was found of files that others wrote for the terminal; the last line never says that they are proven."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bge_export.foreign.measure import ForeignProof, Unmeasured
from bge_export.foreign.reading import Reading
from bge_export.heads.dense import dense_head
from bge_export.parity.figures import cosine_figure, escaped
from bge_export.parity.show.render import render


def render_foreign(proof: ForeignProof | Unmeasured, width: int) -> RenderableType:
    """Return what a file holds and how it is read, the table of its lanes, the reasons, and what is not known."""
    if isinstance(proof, Unmeasured):
        return Text.assemble(("NOT MEASURED", "bold red"), escaped(f": {proof.name}: {proof.reason}"))

    file, target = proof.file, proof.file.artifact.target
    facts = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("file", f"{file.name}, sha256 {file.sha256[:12]}, which bge-export did not write"),
        ("judged as", f"{target}, by the types of its weights and its operators"),
        ("inputs", ", ".join(file.artifact.inputs)),
        ("outputs", ", ".join(file.artifact.outputs)),
        ("read as", read_as(proof.reading, promised=dense_head(proof.report.spec.to_spec()).normalize)),
    ):
        facts.add_row(f"[bold]{name}[/]", Text(escaped(value)))

    # The conclusion of a proof is not one of a file of which less is known.
    parts = render(proof.report, proof.verdict, width)
    inner = parts.renderables[:-1] if isinstance(parts, Group) else [parts]
    unknown = [Text(escaped(f"  - {phrase}"), style="dim") for phrase in proof.unknown]
    return Group(facts, Text(""), *inner, Text("not known:"), *unknown, _conclusion(proof))


def read_as(reading: Reading, *, promised: bool) -> str:
    """Return in words how a vector is read from a file; `promised` says whether the checkpoint divides by the norm."""
    what = {
        "states": f"{reading.output}, {reading.pooling} pooling of its states",
        "first state": f"{reading.output}, the first token's state, which is all that it holds",
        "vector": f"{reading.output}, one vector a text, pooled by the graph",
    }[reading.form]
    divided = "divided by its norm afterwards" if promised else "not divided by its norm"
    norm = "divided by its norm by the graph" if reading.unit else divided
    return f"{what}, {norm} (median cosine of probed texts {cosine_figure(reading.agreement)})"


def _conclusion(proof: ForeignProof) -> Text:
    target = proof.file.artifact.target
    if proof.verdict.passed:
        words = f": every row is within the limits of {target}. That proves no folder."
        return Text.assemble("\n", ("WITHIN LIMITS", "bold green"), escaped(words))

    count = len(proof.verdict.failures)
    words = f" of {target} for {count} reason{'s' * (count != 1)}."
    return Text.assemble("\n", ("OUTSIDE THE LIMITS", "bold red"), escaped(words))
