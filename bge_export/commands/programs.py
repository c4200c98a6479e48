"""The command that checks a program in any language against a folder's golden texts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bge_export.bundle.contract import Contract, read_contract
from bge_export.bundle.manifest import read_bundle
from bge_export.commands.choosing import chosen_target
from bge_export.commands.measuring import read_policy
from bge_export.errors import ArtifactError, UsageError
from bge_export.files.reading import reading
from bge_export.files.regular import GOLDEN_BYTES, read_regular
from bge_export.heads.dense import without_embeddings
from bge_export.programs.judging import ProgramVerdict, RowLimits, judge_vectors, read_vectors
from bge_export.programs.running import run_program, split_command
from bge_export.texts.corpus import Kind
from bge_export.texts.golden import GOLDEN, USES, GoldenRow, read_rows

USE = "{use}"
"""In a command: where `query` or `document` is put, for a program that puts prompts before texts by itself."""

PRINTED = 1e-4
"""Norm error that is let pass in any case: of vectors that are printed with five decimals."""


@dataclass(frozen=True)
class ProgramCheck:
    """The result of checking a program.

    Attributes:
        target: the file by whose limits it was judged.
        verdict: what was found.
        notes: what was not checked, one sentence each.
    """

    target: str
    verdict: ProgramVerdict
    notes: tuple[str, ...]


def check_program(
    folder: Path,
    command: str,
    *,
    target: str | None = None,
    token_ids: bool = False,
    seconds: float = 120.0,
    thresholds: Path | None = None,
) -> ProgramCheck:
    """Run a program on the golden texts of a folder, and judge its vectors.

    The program reads one JSON string a line and prints one JSON list a line, in the same order.

    Args:
        folder: a folder that bge-export wrote.
        command: the program and its arguments. If `{use}` stands in them, it is run on documents and on queries, and
            puts the prompt before a text by itself; else the prompts stand before the texts already.
        target: the file that the program runs, whose limits hold; by default onnx-fp32, or the folder's only one.
        token_ids: give one JSON list of token ids a line instead of texts.
        seconds: the time limit of each run.
        thresholds: a file of limits to use instead of the package's own.

    Raises:
        UsageError: an argument cannot be used.
        ClientError: the program failed or did not end in time.
        ArtifactError: the folder holds no golden texts, or is damaged.
    """
    own_prompts = USE in command
    if token_ids and own_prompts:
        raise UsageError(f"{USE} says what texts are embedded as, and --token-ids gives none. Leave one of them out.")

    split_command(command)
    manifest, _ = read_bundle(folder)
    if not manifest.spec.only_dense:
        raise UsageError(without_embeddings(sorted(manifest.spec.heads.kinds)))

    contract, golden = read_contract(folder), read_golden(folder)
    name, limits = _limits(contract, target, thresholds)

    asked: list[GoldenRow] = []
    vectors: list[NDArray[np.float64]] = []
    for arguments, rows, lines in _runs(command, golden, token_ids=token_ids):
        found, fault = read_vectors(run_program(arguments, lines, seconds), len(lines), contract.embedding.width)
        if found is None:
            return ProgramCheck(name, ProgramVerdict((), limits, (fault,)), ())
        asked += rows
        vectors.append(found)

    verdict = judge_vectors(np.concatenate(vectors), asked, contract, limits, token_ids=token_ids)
    return ProgramCheck(name, verdict, tuple(_notes(contract, own_prompts=own_prompts, token_ids=token_ids)))


def read_golden(folder: Path) -> tuple[GoldenRow, ...]:
    """Return the golden texts of a folder.

    Raises:
        ArtifactError: there are none, or the file is damaged.
    """
    path, advice = folder / GOLDEN, "Export the folder again."
    with reading(path, ArtifactError, advice=advice):
        content = read_regular(path, GOLDEN_BYTES)

    try:
        return read_rows(content)
    except ValueError as error:
        raise ArtifactError(f"{path} is not a file of golden texts: {error}. {advice}") from error


def _limits(contract: Contract, target: str | None, thresholds: Path | None) -> tuple[str, Mapping[Kind, RowLimits]]:
    """Return the target whose limits hold, and these, of each kind of text.

    Raises:
        UsageError: it is not in the folder, has no limits, or must be named.
    """
    name = chosen_target([one.target for one in contract.files], target)
    limits = read_policy(thresholds).limits_for(name, "", "")
    if limits is None:
        raise UsageError(f"There are no limits for {name}. Give a file that has them with --thresholds.")

    # A program may print fewer digits than float32 has.
    normalized = contract.embedding.normalize
    return name, {
        kind: RowLimits(limits.least_cosine(kind), max(limits.norm_error(kind, normalized=normalized), PRINTED))
        for kind in get_args(Kind)
    }


def _runs(
    command: str, golden: Sequence[GoldenRow], *, token_ids: bool
) -> Iterator[tuple[list[str], list[GoldenRow], list[str]]]:
    """Yield each call of the program: its arguments, the texts that it is asked for, and the lines that it reads."""
    if USE not in command:
        given = [row.token_ids if token_ids else row.prompt + row.text for row in golden]
        yield split_command(command), list(golden), [json.dumps(one) for one in given]
        return

    for use in USES:
        rows = [row for row in golden if row.use == use]
        yield split_command(command.replace(USE, use)), rows, [json.dumps(row.text) for row in rows]


def _notes(contract: Contract, *, own_prompts: bool, token_ids: bool) -> Iterator[str]:
    """Yield what was not checked."""
    if token_ids:
        yield "tokenizer and prompts were not checked: the program was given token ids"
    elif not own_prompts and any(contract.text.prompts.values()):
        yield f"prompts stood before the texts already: write {USE} in the command for a program that knows them"
