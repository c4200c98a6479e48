"""Every "no" about the kind of a text: a report must not give a text the looser limit by calling it stress."""

from collections.abc import Iterator

from bge_export.parity.figures import excerpt
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import ParityReport
from bge_export.texts.corpus import Corpus


def kind_failures(report: ParityReport, corpus: Corpus) -> Iterator[Failure]:
    """Yield each row of another kind than its text, and each language whose texts are of both kinds.

    The kind of an everyday text with a language depends on the tokenizer that was measured, which is not here: either
    kind may be right, but one tokenizer gives all texts of a language the same.
    """
    texts = {text.id: text for text in corpus.texts}
    found: dict[str, dict[str, str]] = {}

    for lane in report.lanes:
        for row in lane.rows:
            text = texts.get(row.id)
            if text is None:
                continue  # an extra row, which is refused as such
            if text.language and text.kind == "everyday":
                found.setdefault(text.language, {}).setdefault(row.kind, f"{excerpt(row.id)!r} in {lane.name}")
            elif row.kind != text.kind:
                got, needed = f"a text called {row.kind}", f"{text.kind}, which it is in {corpus.name}"
                yield failure("inconsistent", got, needed, lane=lane.name, row=row.id, text=row.text)

    for language, kinds in found.items():
        if len(kinds) > 1:
            named = " and ".join(f"{kind} ({where})" for kind, where in sorted(kinds.items()))
            got = f"texts of the language {language!r} are both {named}"
            yield failure("inconsistent", got, "one kind for all texts of a language")
