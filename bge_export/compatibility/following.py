"""What follows pooling in a folder, as clients meet it: most pool token states by themselves, and leave it out."""

from collections.abc import Iterator
from pathlib import Path

from bge_export.checkpoint.head_files import read_declarations
from bge_export.checkpoint.module_files import layers_of
from bge_export.checkpoint.pooling_files import SentenceFiles
from bge_export.compatibility.findings import Advice, Finding
from bge_export.compatibility.libraries import LibraryFacts
from bge_export.contracts import COMMON_POOLINGS, SENTENCE_EMBEDDING
from bge_export.errors import CheckpointError

CLIENT_SETTING = f"const {{ {SENTENCE_EMBEDDING} }} = await model(await tokenizer(text)), of AutoModel"
"""How users of Transformers.js get the embedding of the graph."""


def client_advice(folder: Path) -> Iterator[Advice]:
    """Yield what pipelines of Transformers.js leave out of a folder; nothing if its files cannot be read."""
    try:
        left_out = _own(folder, read_declarations(folder))
    except CheckpointError:  # `check_folder` reports it
        return

    if left_out:
        yield Advice("layers", f"pipelines do not give the folder's {left_out}", CLIENT_SETTING)


def library_findings(folder: Path, declared: SentenceFiles, facts: LibraryFacts) -> Iterator[Finding]:
    """Yield what no setting adds to a library that pools states by itself."""
    left_out = _layers(folder, declared)
    if left_out and facts.layers == "skipped":
        got = f"a folder whose pooling is followed by {left_out}, which it leaves out"
        yield Finding("layers", got, "a model without, or another library")


def library_advice(folder: Path, declared: SentenceFiles, facts: LibraryFacts) -> Iterator[Advice]:
    """Yield how users of a library that returns outputs get the embedding of the graph."""
    left_out = _own(folder, declared)
    if left_out and facts.layers == "asked":
        yield Advice("layers", f"states pooled as usual lack the folder's {left_out}", facts.set_layers)


def _own(folder: Path, declared: SentenceFiles) -> str:
    """Return what a client of the usual poolings lacks, "" if nothing: the pooling itself, and the layers after it."""
    unusual = declared.pooling is not None and declared.pooling not in COMMON_POOLINGS
    parts = ([f"{declared.pooling} pooling"] if unusual else []), _layers(folder, declared)
    return ", ".join([*parts[0], *([parts[1]] if parts[1] else [])])


def _layers(folder: Path, declared: SentenceFiles) -> str:
    """Return the layers of a folder as people read them, "" if there are none."""
    return ", ".join(map(str, layers_of(folder, declared.modules, declared.width or 0, declared.truncate_dim)))
