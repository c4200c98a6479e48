"""Checks a folder against targets: each model file by its bytes, the small files once, and hosts by measuring."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bge_export.compatibility.findings import FileCheck, Finding, FolderCheck, Measured
from bge_export.compatibility.following import client_advice
from bge_export.compatibility.graphs import check_graph, read_graph
from bge_export.compatibility.hosts import measure, over_limits
from bge_export.compatibility.json_keys import check_folder, client_config, client_output
from bge_export.compatibility.libraries import LIBRARIES
from bge_export.compatibility.library_check import check_library
from bge_export.compatibility.targets import TARGETS, TargetFacts
from bge_export.contracts import LAST_HIDDEN_STATE, LOGITS, Artifact, Target
from bge_export.errors import ArtifactError, UsageError
from bge_export.heads.dense import UNDECLARED
from bge_export.javascript.clients import FILES

Measure = Callable[[Artifact, str], Measured]


def check_targets(
    folder: Path, targets: Sequence[str], *, dtypes: Sequence[str] = (), measuring: Measure = measure
) -> FolderCheck:
    """Check a folder against targets. bge-export need not have written the folder.

    Args:
        folder: a folder in the layout that Transformers.js loads.
        targets: keys of `TARGETS` or `LIBRARIES`.
        dtypes: the files to check, by their `dtype` in Transformers.js; by default all that exist. Libraries choose
            files by themselves.
        measuring: the function that measures a file on a host; tests pass their own.

    Raises:
        UsageError: a target or dtype is unknown.
        ArtifactError: the folder or a file cannot be read.
        MeasurementError: the file could not be measured against a host's limits.
    """
    for given, known, what in ((targets, {**TARGETS, **LIBRARIES}, "target"), (dtypes, FILES.values(), "dtype")):
        if unknown := [name for name in given if name not in known]:
            raise UsageError(f"there is no {what} {unknown[0]!r}: {', '.join(known)}")

    if not folder.is_dir():
        raise ArtifactError(f"{folder} is not a folder. Give one that holds config.json and onnx/.")

    present = [name for name, dtype in FILES.items() if (folder / name).is_file() and (not dtypes or dtype in dtypes)]

    found: list[FileCheck] = []
    for target in targets:
        if target in LIBRARIES:
            found += check_library(folder, target, LIBRARIES[target])
            continue

        facts = TARGETS[target]
        files = [_check_file(folder, name, target, facts, measuring) for name in present]
        findings = [*check_folder(folder, facts), *_without_files(folder, files, facts)]
        whole = replace(_check(target, "", 0, findings), advice=tuple(client_advice(folder)))
        found += [whole, *files]
    return FolderCheck(tuple(found))


def _without_files(folder: Path, files: Sequence[FileCheck], facts: TargetFacts) -> Iterator[Finding]:
    """Yield the reason why a folder has no file for a target; findings about its files say why none of them fits."""
    if any(one.state != "not for it" for one in files):
        return

    loaded = [name for name, dtype in FILES.items() if dtype in facts.dtypes and facts.client.options(name) is not None]
    others = sorted({path.relative_to(folder).as_posix() for path in folder.glob("**/*.onnx")})
    got = f"no file that the client loads, only {', '.join(others)}" if others else "no ONNX file"
    yield Finding("files", got, f"{loaded[0]}, or another variant that the client loads")


def _check(target: str, file: str, size: int, findings: Sequence[Finding]) -> FileCheck:
    return FileCheck(target, file, size, tuple(findings), "refused" if findings else "fits")


def _check_file(folder: Path, name: str, target: str, facts: TargetFacts, measuring: Measure) -> FileCheck:
    """Return one file's check; a host is measured only if the file would load there."""
    size = (folder / name).stat().st_size
    if FILES[name] not in facts.dtypes or facts.client.options(name) is None:
        return FileCheck(target, name, size, (), "not for it")

    model = read_graph(folder / name)
    config, answer = client_config(folder), client_output(folder)
    check = _check(target, name, size, check_graph(model, folder / name, facts, config, answer))
    if check.findings or facts.device is None:
        return check

    if [value.name for value in model.graph.output] == [LOGITS]:
        got = "a reranker, and clients are given single texts when a host is measured"
        return _check(target, name, size, [Finding("host", got, "an embedding model: rerankers are not measured yet")])

    measured = measuring(_artifact(folder, name, [value.name for value in model.graph.input]), facts.device)
    over = tuple(over_limits(measured, facts))
    return replace(check, measured=measured, findings=over, state="too large" if over else "fits")


def _artifact(folder: Path, name: str, inputs: Sequence[str]) -> Artifact:
    """Return a file of any folder as an artifact for runtimes; the check ignores its spec."""
    return Artifact(
        target=Target("onnx", FILES[name]),
        root=folder,
        model=name,
        files=(name,),
        digest="",
        spec=UNDECLARED,
        inputs=tuple(inputs),
        outputs=(LAST_HIDDEN_STATE,),
    )
