"""The options that the export commands share, added to each command's own."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from bge_export.cli.options import (
    CORES,
    AllowPickle,
    AsHead,
    Dim,
    ExportThreads,
    Json,
    NoCheck,
    Output,
    Overwrite,
    PoolingOption,
    QueryPrefix,
    Revision,
    Thresholds,
)


@dataclass(frozen=True)
class ExportOptions:
    """Options of every export command."""

    output: Output = None
    revision: Revision = None
    pooling: PoolingOption = None
    query_prefix: QueryPrefix = None
    dim: Dim = None
    head: AsHead = None
    allow_pickle: AllowPickle = False
    overwrite: Overwrite = False
    no_check: NoCheck = False
    thresholds: Thresholds = None
    threads: ExportThreads = CORES
    as_json: Json = False

    @property
    def given(self) -> bool:
        """Return whether an option was given that is part of a recipe."""
        values = (self.output, self.revision, self.pooling, self.query_prefix, self.dim, self.head, self.thresholds)
        return self.allow_pickle or self.overwrite or self.no_check or any(value is not None for value in values)

    def table(self, model: str) -> dict[str, Any]:
        """Return the recipe's tables for these options."""
        return {
            "source": {
                "model": model,
                "revision": self.revision,
                "pooling": self.pooling,
                "query_prefix": self.query_prefix,
                "dim": self.dim,
                "head": self.head,
                "allow_pickle": self.allow_pickle,
            },
            "output": {"folder": self.output, "overwrite": self.overwrite},
            "proof": {"check": not self.no_check, "thresholds": self.thresholds},
        }


@dataclass(frozen=True)
class Int8Choices:
    """Options of int8 quantization."""

    calibration: Annotated[
        Path | None,
        typer.Option(help="Texts to calibrate int8 with: .txt, .jsonl, .tsv, .csv. [default: the package's own]"),
    ] = None
    cls_only: Annotated[
        bool, typer.Option("--cls-only", help="int8 returns the first token's state alone, [B, 1, D]: 6 % less work.")
    ] = False
    min_cosine: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=1.0, help="int8: search the fastest variant that holds this cosine on texts held back."
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Return whether any of them was given."""
        return self.calibration is not None or self.cls_only or self.min_cosine is not None

    def table(self) -> dict[str, Any]:
        """Return the recipe's table for these options."""
        return {"calibration": self.calibration, "cls_only": self.cls_only, "min_cosine": self.min_cosine}


@dataclass(frozen=True)
class FolderChoices:
    """What the folder holds besides models and settings."""

    with_weights: Annotated[
        bool,
        typer.Option("--with-weights", help="Add the PyTorch weights, for libraries that run those, as safetensors."),
    ] = False


GROUPS = (Int8Choices, FolderChoices, ExportOptions)
"""Groups of options, in the order of `--help`."""


def with_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of each group that it takes: typer sees them one by one, the command as one value."""
    hints = get_type_hints(command, include_extras=True)
    own = [one for one in inspect.signature(command).parameters.values() if hints[one.name] not in GROUPS]
    groups = {name: hint for name, hint in hints.items() if hint in GROUPS}

    @wraps(command)
    def parsed(**given: Any) -> int:  # noqa: ANN401 - any option
        values = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**values, **given)

    shared = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
        for group in GROUPS
        if group in groups.values()
        for field in fields(group)
        for annotation in (get_type_hints(group, include_extras=True)[field.name],)
    ]
    own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name]) for one in own]

    signature = inspect.Signature([*own, *shared], return_annotation=int)
    parsed.__signature__ = signature  # type: ignore[attr-defined]
    parsed.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()} | {"return": int}
    return parsed
