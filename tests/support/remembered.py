"""Remembers what the oracle said: the same checkpoint gives the same texts the same vectors, however often it is asked.

A small export spends 40 % of its time there, and most tests export the same small checkpoint. `test_real`, the golden
vectors and the tests of `oracle` ask the oracle itself.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bge_export.contracts import Checkpoint
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.texts.corpus import Corpus

Oracle = Callable[..., ReferenceVectors]

MOST = 4
"""So many answers are kept; those of a real checkpoint fill some hundred megabytes."""


def remembering(oracle: Oracle) -> Oracle:
    """Return an oracle that asks the given one only what it was not asked before."""
    known: OrderedDict[str, ReferenceVectors] = OrderedDict()

    def ask(checkpoint: Checkpoint, corpus: Corpus, *, threads: int, every_id: bool = True) -> ReferenceVectors:
        question = repr((replace(checkpoint, root=Path(), source="", revision=None), corpus, every_id))
        if question not in known:
            known[question] = oracle(checkpoint, corpus, threads=threads, every_id=every_id)
        known.move_to_end(question)
        while len(known) > MOST:
            known.popitem(last=False)
        return replace(known[question], source=checkpoint.source, revision=checkpoint.revision)

    return ask
