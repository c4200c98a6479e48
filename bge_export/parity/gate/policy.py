"""Read the acceptance limits from one reviewed file. No limit has a default, so relaxing one is a visible diff."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bge_export.errors import PolicyError
from bge_export.files.regular import LIMITS_BYTES
from bge_export.files.toml_files import read_toml
from bge_export.formats import formats
from bge_export.parity.gate.limits import HEAD_LIMITS, Limits, ScoreLimits, SparseLimits, VectorsLimits
from bge_export.parity.measure.client_tokens import KINDS
from bge_export.parity.report import Lane
from bge_export.precision import model_files, precision_names
from bge_export.runtimes import find_runtime, runtime_names

TARGETS = (*model_files(), "torchscript-fp32", "checkpoint-fp32", "checkpoint-fp16", "checkpoint-bf16")
"""All targets that an export writes, and the checkpoint itself in torch."""

AnyLimits = Limits | ScoreLimits | SparseLimits | VectorsLimits
Found = TypeVar("Found", Limits, ScoreLimits, SparseLimits, VectorsLimits, SparseLimits | VectorsLimits)

_TARGET = r"[^@:\s]+-[^@:\s]+"
_LANE = r"[^@:\s]+:[^@\s]+(?:@[^@\s]+)?"
_REQUIREMENT = re.compile(rf"(?:(?P<target>{_TARGET})@)?(?P<lane>{_LANE})")
DIFFERENCES = "token-differences"
SCORES = "score"
"""Table of the tables of limits for rerankers."""

_TABLE = re.compile(rf"{_TARGET}(?:@{_LANE})?")


@dataclass(frozen=True)
class Requirement:
    """A runtime and device that must have been measured, for one target or for all that the runtime reads."""

    target: str | None
    runtime: str
    device: str

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        lane = f"{self.runtime}:{self.device}"
        return lane if self.target is None else f"{self.target}@{lane}"

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """Parse `runtime:device` or `target@runtime:device`.

        Raises:
            PolicyError: the text is not a valid requirement.
        """
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise PolicyError(
                f"{text!r} is not a valid requirement. Write runtime:device, such as onnxruntime:cpu, "
                "or target@runtime:device, such as onnx-fp32@onnxruntime:cpu."
            )

        runtime, _, device = match["lane"].partition(":")
        return cls(match["target"], runtime, device)


@dataclass(frozen=True)
class ThresholdPolicy:
    """The limits by `target` or `target@runtime:device`, and the required measurements.

    Attributes:
        require: the required measurements.
        tables: table name (`target` or `target@runtime:device`) -> limits.
        token_differences: pattern of `runtime:device` -> the kinds of text that a client's own tokenizer may tokenize
            differently (`client_tokens.KINDS`).
        digest: sha256 of the file, if it is not the package's own.
        scores: the same as `tables` for rerankers.
        heads: kind of another head (`HEAD_LIMITS`) -> the same for its outputs.
    """

    require: tuple[Requirement, ...]
    tables: Mapping[str, Limits]
    token_differences: Mapping[str, frozenset[str]] = field(default_factory=dict)
    digest: str | None = None
    scores: Mapping[str, ScoreLimits] = field(default_factory=dict)
    heads: Mapping[str, Mapping[str, SparseLimits | VectorsLimits]] = field(default_factory=dict)

    def accepted_differences(self, runtime: str, device: str) -> frozenset[str] | None:
        """Return the kinds of text that a client in this runtime and device may tokenize differently.

        None if no pattern matches: then no difference is accepted, and the client need not have been measured.
        """
        lane = f"{runtime}:{device}"
        found = [kinds for pattern, kinds in self.token_differences.items() if fnmatchcase(lane, pattern)]
        return frozenset[str]().union(*found) if found else None

    def limits_for(self, target: str, runtime: str, device: str) -> Limits | None:
        """Return the limits of a lane, the most specific table first; None if the file has no table for it."""
        return self.tables.get(self.table_of(target, runtime, device))

    def score_limits_for(self, target: str, runtime: str, device: str) -> ScoreLimits | None:
        """Return the limits of a reranker's lane, the most specific table first; None if there is no table for it."""
        return self.scores.get(f"{target}@{runtime}:{device}", self.scores.get(target))

    def head_limits_for(self, kind: str, lane: Lane) -> SparseLimits | VectorsLimits | None:
        """Return the limits of an output that a head reads, the most specific table first; None if there is none."""
        tables = self.heads.get(kind, {})
        return tables.get(f"{lane.target}@{lane.runtime}:{lane.device}", tables.get(lane.target))

    def file_tables(self, kinds: Collection[str]) -> Mapping[str, AnyLimits]:
        """Return the tables that hold the limits of a file itself, by the kinds of its heads."""
        if "score" in kinds:
            return self.scores
        return self.tables if "dense" in kinds else self.heads.get(next(iter(kinds)), {})

    def table_of(self, target: str, runtime: str, device: str) -> str:
        """Return the name of the table that applies to a lane: the lane's own if the file has it, else the target's."""
        specific = f"{target}@{runtime}:{device}"
        return specific if specific in self.tables else target

    @classmethod
    def read(cls, path: Path) -> "ThresholdPolicy":
        """Read a file of limits.

        Raises:
            PolicyError: the file is missing, not TOML, incomplete, or has a value that is not a valid limit.
        """
        fields = read_toml(path, LIMITS_BYTES, PolicyError, "a file of limits")

        if not isinstance(fields.get("require"), list):
            raise PolicyError(f"{path}: the list 'require' is missing. Add at least: require = []")
        try:
            require = tuple(Requirement.parse(str(text)) for text in fields.pop("require"))
        except PolicyError as error:
            raise PolicyError(f"{path}: require: {error}") from error

        differences = _token_differences(path, fields.pop(DIFFERENCES, {}))
        of_scores = _table_of_tables(path, SCORES, fields.pop(SCORES, {}))
        of_heads = {kind: _table_of_tables(path, kind, fields.pop(kind, {})) for kind in HEAD_LIMITS}
        if not fields and not of_scores and not any(of_heads.values()):
            raise PolicyError(f'{path} holds no limits. Add a table for each target, such as ["onnx-fp32"].')

        tables = {name: _limits(path, name, table, Limits) for name, table in fields.items()}
        scores = {name: _limits(path, name, table, ScoreLimits) for name, table in of_scores.items()}
        heads: dict[str, Mapping[str, SparseLimits | VectorsLimits]] = {
            kind: {name: _limits(path, name, table, HEAD_LIMITS[kind]) for name, table in own.items()}
            for kind, own in of_heads.items()
        }
        every: list[Mapping[str, AnyLimits]] = [tables, scores, *heads.values()]
        for found in every:
            for name, limits in found.items():
                _refuse_limit_of_a_file(path, name, limits)
                _refuse_unknown_lane(path, name)

        return cls(require, tables, differences, scores=scores, heads={kind: own for kind, own in heads.items() if own})


def _table_of_tables(path: Path, name: str, value: object) -> dict[str, object]:
    """Return the tables of a head; raise PolicyError if they are none."""
    if not isinstance(value, dict):
        raise PolicyError(f'{path}: {name} is not a table. Write its tables as [{name}."onnx-fp32"].')
    return value


def _refuse_limit_of_a_file(path: Path, name: str, limits: AnyLimits) -> None:
    """Raise PolicyError if a lane's table limits the weights, which belong to the file and not to the lane."""
    target, at, _ = name.partition("@")
    if at and limits.max_broken_pairs is not None:
        raise PolicyError(
            f'{path}: ["{name}"] max_broken_pairs: the pairs are of the file, whatever runs it, so this would hold '
            f'nowhere. Write it in ["{target}"].'
        )


def _is_target(target: str) -> bool:
    """Return whether a target exists; one of a format that was just added has any precision that exists."""
    format_name, _, precision = target.partition("-")
    listed = {one.partition("-")[0] for one in TARGETS}
    added = format_name not in listed and format_name in formats()
    return target in TARGETS or (added and precision in precision_names())


def _refuse_unknown_lane(path: Path, name: str) -> None:
    """Raise PolicyError if a table names an unknown target, runtime or device, since its limits would never apply."""
    target, _, lane = name.partition("@")
    runtime, _, device = lane.partition(":")
    if not _is_target(target):
        raise PolicyError(
            f'{path}: ["{name}"]: there is no target {target!r}, so these limits would hold nowhere. '
            f"Known: {', '.join(TARGETS)}."
        )
    if not lane:
        return

    if runtime not in runtime_names():
        wrong, known = f"no runtime {runtime!r}", runtime_names()
    elif device not in (reader := find_runtime(runtime)).known:
        wrong, known = f"{runtime} has no device {device!r}", reader.known
    elif target.partition("-")[0] not in reader.formats:
        wrong, known = f"{runtime} does not read {target!r}", tuple(f"{name}-…" for name in sorted(reader.formats))
    else:
        return

    raise PolicyError(f'{path}: ["{name}"]: {wrong}, so these limits would hold nowhere. Known: {", ".join(known)}.')


def _token_differences(path: Path, table: object) -> dict[str, frozenset[str]]:
    """Return pattern of `runtime:device` -> kinds of text."""
    if not isinstance(table, dict):
        raise PolicyError(f"{path}: [{DIFFERENCES}] is not a table. Give each lane a list of kinds of text.")

    for pattern, kinds in table.items():
        unknown = [kinds]
        if isinstance(kinds, list):
            unknown = [kind for kind in kinds if not (isinstance(kind, str) and kind in KINDS)]
        if unknown:
            raise PolicyError(
                f"{path}: [{DIFFERENCES}] {pattern!r}: {unknown[0]!r} is not a known kind of text: {', '.join(KINDS)}"
            )

    return {pattern: frozenset(kinds) for pattern, kinds in table.items()}


def _limits(path: Path, name: str, table: object, kind: type[Found]) -> Found:
    if _TABLE.fullmatch(name) is None or not isinstance(table, dict):
        raise PolicyError(
            f"{path}: {name!r} is not a table of limits. "
            'Name tables after a target, ["onnx-fp32"], or a lane, ["onnx-fp16@onnxruntime:cuda"].'
        )

    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) or "''" for part in first["loc"])

        # An error between two fields belongs to neither, and its message from `Limits` is already a sentence.
        between = first["type"] == "value_error" and not first["loc"]
        reason = str(first["ctx"]["error"]) if between else f"{field}: {first['msg']}. Every limit must be there."
        raise PolicyError(f'{path}: ["{name}"] {reason}') from error
