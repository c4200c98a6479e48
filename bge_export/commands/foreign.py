"""Measures files that bge-export did not write against a checkpoint: a bare model file, or all of a folder."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.layout import write_layout
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.commands.measuring import named_device, read_policy, read_texts, run_oracle
from bge_export.commands.turns import in_turn
from bge_export.contracts import Checkpoint, Runtime
from bge_export.errors import BgeExportError, OutputError, UsageError
from bge_export.files.single import refuse_path
from bge_export.foreign.files import ForeignFile, model_files_at, read_foreign
from bge_export.foreign.measure import Against, ForeignProof, Unmeasured, measure_foreign
from bge_export.foreign.report import OWN_FOREIGN_REPORT, write_foreign_report
from bge_export.formats import find_format
from bge_export.heads.dense import without_embeddings
from bge_export.memory import release
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.runtimes import find_runtime
from bge_export.texts.corpus import Corpus
from bge_export.texts.tokens import TextTokenizer


def is_foreign(path: Path) -> bool:
    """Return whether a path is measured as what others wrote: a file, or a folder without a manifest."""
    return path.is_file() or (path.is_dir() and not (path / MANIFEST).is_file())


@in_turn
def check_foreign(
    path: Path,
    reference: str,
    *,
    revision: str | None = None,
    texts: Path | None = None,
    column: str | None = None,
    lanes: Sequence[str] = (),
    thresholds: Path | None = None,
    report_path: Path | None = None,
    threads: int = 1,
) -> tuple[ForeignProof | Unmeasured, ...]:
    """Measure the model files at a path against a checkpoint, and judge each by the limits of its precision.

    A file of a folder that cannot be measured does not keep the others from it; a single one raises.

    Args:
        path: a model file, or a folder without a manifest.
        reference: the checkpoint (Hub id or folder); its tokenizer makes the tokens.
        revision: the reference's Hub revision.
        texts: a file of texts to use instead of the package's own.
        column: the column of a `.tsv` or `.csv` file that holds them.
        lanes: `runtime:device` to measure in; by default each format's own runtime on the CPU.
        thresholds: a file of limits to use instead of the package's own.
        report_path: where to write the report; by default none is written.
        threads: threads for the oracle and the runtimes.

    Raises:
        UsageError: an argument cannot be used.
        MeasurementError: a file could not be measured.
    """
    if reference.endswith(".npz"):
        raise UsageError(
            f"{reference}: a file that bge-export did not write needs the checkpoint itself, whose tokenizer makes its "
            "tokens. Give the Hub id or the folder as --reference."
        )
    if report_path is not None:
        _refuse_report(report_path)

    policy, corpus = read_policy(thresholds), read_texts(texts, column)
    chosen = [(device.runtime, device.device) for device in map(named_device, lanes)]
    paths = model_files_at(path)

    checkpoint = open_checkpoint(reference, revision=revision)
    if checkpoint.spec.is_reranker:
        raise UsageError(
            f"{reference} is a reranker: of files that bge-export did not write, only those of embedding models are "
            "measured. Export it with bge-export onnx to get files that are."
        )
    if checkpoint.spec.has_token_heads:
        raise UsageError(f"{reference}: {without_embeddings(checkpoint.spec.heads)}")
    if path.is_file():  # before the checkpoint runs, which takes minutes
        _devices(read_foreign(path, path, checkpoint.spec), chosen)

    against = _against(checkpoint, corpus, policy, threads)
    proofs = tuple(_measured(one, path, chosen, against) for one in paths)
    if report_path is not None:
        write_foreign_report(proofs, report_path)
    return proofs


def _against(checkpoint: Checkpoint, corpus: Corpus, policy: ThresholdPolicy, threads: int) -> Against:
    """Run the checkpoint; return its vectors with the tokenizer that a folder of it would have."""
    vectors = run_oracle(checkpoint, corpus, threads)
    release()

    with TemporaryDirectory(prefix="bge_export-") as folder:
        write_layout(checkpoint, Path(folder))
        tokenizer = TextTokenizer.load(Path(folder), checkpoint.spec.inputs.max_tokens)
    return Against(vectors, corpus, tokenizer, policy, threads)


def _measured(
    path: Path, given: Path, chosen: Sequence[tuple[Runtime, str]], against: Against
) -> ForeignProof | Unmeasured:
    """Return what was found of one file, or why it could not be measured, if there may be others."""
    try:
        file = read_foreign(path, given, against.reference.spec)
        return measure_foreign(file, _devices(file, chosen), against)
    except BgeExportError as error:
        if path == given:
            raise
        return Unmeasured(path.relative_to(given).as_posix(), str(error))


def _devices(file: ForeignFile, chosen: Sequence[tuple[Runtime, str]]) -> Sequence[tuple[Runtime, str]]:
    """Return where a file is measured: in the chosen runtimes that read its format, else in its own on the CPU."""
    format_name = file.artifact.target.format
    if not chosen:
        return [(find_runtime(find_format(format_name).runtimes[0]), "cpu")]

    able = [one for one in chosen if format_name in one[0].formats]
    if not able:
        names = ", ".join(runtime.name for runtime, _ in chosen)
        raise UsageError(f"{file.path} is of {format_name}, which {names} does not read. Name another --runtime.")
    return able


def _refuse_report(path: Path) -> None:
    """Raise OutputError unless a report on files of others may be written there: never into a folder of ours."""
    refuse_path(path, "report on such files", OWN_FOREIGN_REPORT)
    if (path.parent / MANIFEST).is_file():
        raise OutputError(
            f"{path} would lie in a folder that bge-export wrote, as if it were a report on it. Write it elsewhere."
        )
