"""One part of a fleet: a target of a checkpoint, exported and proven by whichever process takes it.

A part is the recipe with this target alone, built in a folder of its own by `build_recipe`. What is proven goes into
the store under a key, the digest of all that its bytes and its proof depend on; a part that is there is not made again.
"""

import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from bge_export.build.recipe import Output, ProofOptions, Recipe
from bge_export.build.state import key_of
from bge_export.build.store import Store
from bge_export.commands.building.exporting import inputs_of
from bge_export.commands.building.job import Job
from bge_export.commands.building.results import BuildOptions
from bge_export.commands.building.run import build_recipe
from bge_export.contracts import Target
from bge_export.errors import BgeExportError
from bge_export.parity.measure.environment import version_of
from bge_export.precision import find_precision

FOLDER = "part"
"""The name of the folder that a part is built in; its state lies beside it."""

TOOLS = ("bge-export", "torch", "transformers", "onnx", "onnxscript", "onnxruntime", "openvino", "nncf", "numpy")
"""Libraries whose versions decide the bytes of a model or the figures of its proof."""

_GIB = 2**30
_OWN_GIB = 1.5
"""Memory of Python and its libraries without a model."""
_COPIES = 6
"""Most memory that an export with its proof takes, as a multiple of the float32 weights."""
_ROUNDED_TIMES = 6.0
"""Time of a rounded target, as a multiple of that of a float one: its variants are tried and measured."""


class Part(BaseModel):
    """What a process is asked to make; sent as JSON.

    Attributes:
        number: the place of the recipe in its fleet, from 0.
        recipe: the recipe, with all its targets; its paths are absolute.
        target: the target of this part, as manifests name it.
        store: the URL of the store.
        threads: threads for export, oracle and runtimes.
        memory: bytes of memory that it needs at most, as far as one can tell before.
        cost: how long it takes, in no unit: to begin with the longest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    number: int
    recipe: Recipe
    target: str
    store: str
    threads: int
    memory: int = 0
    cost: float = 0.0


class PartResult(BaseModel):
    """What came of a part; sent as JSON.

    Attributes:
        number, target: whose part it is.
        key: where the store has it; None if there is nothing to store.
        kept: whether the store had it before.
        seconds: how long it took.
        node: the machine.
        refused: why the gate refused it; nothing if it did not.
        error: why it could not be made, a message for people; None otherwise.
        exit_status: the exit status that belongs to the error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    target: str
    key: str | None = None
    kept: bool = False
    seconds: float = 0.0
    node: str = ""
    refused: tuple[str, ...] = ()
    error: str | None = None
    exit_status: int = 0


def parts_of(number: int, job: Job, targets: Mapping[str, Target], store: str) -> list[Part]:
    """Return the parts of a recipe.

    Args:
        number: the place of the recipe in its fleet.
        job: its build.
        targets: the targets to make, by the names that manifests give them.
        store: the URL of the store.
    """
    weights = sum((job.checkpoint.root / name).stat().st_size for name in job.checkpoint.weights)
    memory = int(_OWN_GIB * _GIB + _COPIES * weights)

    def cost(target: Target) -> float:
        return weights * (_ROUNDED_TIMES if find_precision(target.precision).rounded else 1.0)

    return [
        Part(
            number=number,
            recipe=job.recipe.with_paths(Path.absolute),
            target=name,
            store=store,
            threads=job.threads,
            memory=memory,
            cost=cost(target),
        )
        for name, target in targets.items()
    ]


def make_part(asked: str) -> str:
    """Make a part, wherever this is called; both are JSON: a `Part`, and the `PartResult`.

    Nothing of this package is raised: a result says what went wrong.
    """
    part = Part.model_validate_json(asked)
    start = time.monotonic()
    result = PartResult(number=part.number, target=part.target, node=platform.node())
    try:
        result = result.model_copy(update=_made(part))
    except BgeExportError as error:
        result = result.model_copy(update={"error": str(error), "exit_status": error.exit_status})
    return result.model_copy(update={"seconds": round(time.monotonic() - start, 1)}).model_dump_json()


def _made(part: Part) -> dict[str, Any]:
    """Put a part into the store, if it is proven or was there already; return what a result says of it."""
    store = Store(part.store)
    with tempfile.TemporaryDirectory(prefix="bge-export-part-") as scratch:
        recipe = alone(part, Path(scratch) / FOLDER)
        key = key_of_part(Job.open(recipe, part.threads))
        if store.holds(key):
            return {"key": key, "kept": True}

        built = build_recipe(recipe, BuildOptions(threads=part.threads))
        if built.exit_status or built.proof is None:
            reasons = tuple(reason for step in built.steps for reason in step.refused)
            failures = () if built.proof is None else tuple(one.message for one in built.proof.verdict.failures)
            return {"refused": reasons or failures or ("nothing was proven",)}

        store.put(key, Path(scratch))
        return {"key": key}


def alone(part: Part, folder: Path) -> Recipe:
    """Return the recipe of one part: its target alone, in a folder of its own, and nothing of the whole folder."""
    recipe = part.recipe
    (target,) = (one for one in recipe.every_target if str(one) == part.target)

    changes = {
        "targets": (target,),
        "beside": (),
        "output": Output(folder=folder),
        "proof": ProofOptions(thresholds=recipe.proof.thresholds),
        "options": {name: one for name, one in recipe.options.items() if name == target.format},
        "int8": recipe.int8 if target.precision == "int8" else None,
        **dict.fromkeys(("transformersjs", "texts", "evaluation", "card", "publish")),
    }

    return recipe.model_copy(update=changes)


def key_of_part(job: Job) -> str:
    """Return the key of a part: the digest of its inputs, of the versions of libraries, and of the kind of machine."""
    (target,) = job.recipe.targets
    versions = {f"version of {name}": version_of(name) for name in TOOLS}
    return key_of({**inputs_of(job, target), **versions, "machine": platform.machine()})
