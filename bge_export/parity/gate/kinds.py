"""Refusals about the kind of a text: a report must not give a text a looser limit by calling it a stress text."""

from collections.abc import Iterator

from bge_export.parity.figures import excerpt
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import ParityReport
from bge_export.texts.corpus import Corpus


def kind_failures(report: ParityReport, corpus: Corpus) -> Iterator[Failure]:
    """Yield a failure for each row whose kind differs from its text's, and each language with texts of both kinds.

    The kind of an everyday text with a language depends on the measured tokenizer, which is not available here. Either
    kind may be right, but one tokenizer gives all texts of a language the same kind.
    """
    texts = {text.id: text for text in corpus.texts}
    found: dict[str, dict[str, str]] = {}

    for lane in report.lanes:
        for row in lane.facts_of_texts:
            text = texts.get(row.id)
            if text is None:
                continue  # an extra row, refused by another rule

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
