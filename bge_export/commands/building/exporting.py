"""The steps of a build that write into the folder: one for each target, and one for all that lies beside the models."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.build.state import read_state, state_path
from bge_export.bundle.manifest import Model, read_manifest
from bge_export.bundle.origin import weight_names
from bge_export.commands.building.job import Job, Look, Standing
from bge_export.commands.exports import BuildStep, Exported, export_step
from bge_export.contracts import Target
from bge_export.errors import ArtifactError
from bge_export.files.digest import file_sha256
from bge_export.files.spec import SpecRecord
from bge_export.parity.measure.environment import version_of
from bge_export.precision import find_precision
from bge_export.texts.corpus import builtin_corpus
from bge_export.texts.fixtures import fixtures_folder

TOOL = "version of "
"""Before the name of a tool, among the inputs of a step: those that the manifest says a model was made with."""

REASONS = 5
"""Most reasons of a refusal that a summary shows; the report in the refused folder holds all."""


def inputs_of(job: Job, target: Target) -> dict[str, str]:
    """Return what the bytes of a target depend on, without the versions of tools."""
    recipe = job.recipe
    inputs = {
        "target": str(target),
        "checkpoint": job.checkpoint.digest,
        "spec": SpecRecord.of(job.checkpoint.spec).model_dump_json(),
        f"options.{target.format}": json.dumps(recipe.options.get(target.format, {}), sort_keys=True),
    }

    if target.precision == "int8":
        inputs["int8"] = "{}" if recipe.int8 is None else json.dumps(recipe.int8.record(), sort_keys=True)

    # The gate's verdict chooses among the variants of a rounded precision; a float file is the same under any limits.
    if find_precision(target.precision).rounded:
        inputs["limits"] = file_sha256(recipe.proof.thresholds or fixtures_folder() / "thresholds.toml")
        inputs["texts"] = builtin_corpus(pairs=job.checkpoint.spec.is_reranker).digest

    return inputs


@dataclass(frozen=True)
class ExportStep:
    """One target: exported, proven in the runtimes of its format, and put into the folder beside the others."""

    job: Job
    target: Target

    @property
    def name(self) -> str:
        """Return the name of the step."""
        return f"export {self.target}"

    def look(self, standing: Standing, pending: frozenset[str]) -> Look:  # noqa: ARG002 - it depends on no other step
        """Return whether the target is there, made of the same inputs, with the bytes that were written then."""
        done = self.job.state.finished.get(self.name)
        if done is None:
            begun = self.name in self.job.state.begun
            return Look("make", "an earlier build did not finish it" if begun else "not made yet")

        tools = {name: version_of(name.removeprefix(TOOL)) for name in done.inputs if name.startswith(TOOL)}
        if change := done.change({**inputs_of(self.job, self.target), **tools}):
            return Look("make", change)

        if standing.damage is not None:
            return Look("make", standing.damage)

        model = _model(standing, str(self.target))
        if model is None or standing.manifest is None:
            return Look("make", f"{self.job.out} does not hold it")
        if done.outputs != {name: standing.manifest.files[name] for name in model.files}:
            return Look("make", "its files are not those that the build wrote")
        return Look("keep", "same inputs, options and versions; its bytes were verified")

    def make(self, standing: Standing) -> tuple[str, ...]:  # noqa: ARG002 - the export looks itself
        """Export the target into the folder, unless another process has tried it and it was refused."""
        if refused := self.job.given.refused.get(str(self.target)):
            return refused

        self.job.begin(self.name)
        recipe, target = self.job.recipe, self.target
        own = {
            "targets": (target,),
            "options": {name: one for name, one in recipe.options.items() if name == target.format},
            "int8": recipe.int8 if target.precision == "int8" else None,
            "transformersjs": None,
        }

        if refused := _refusals(_exported(self.job, own)):
            return refused

        manifest = read_manifest(self.job.out)
        model = next(one for one in manifest.models if one.target == str(target))
        tools = {f"{TOOL}{name}": version for name, version in model.tools.items()}
        outputs = {name: manifest.files[name] for name in model.files}
        self.job.finish(self.name, {**inputs_of(self.job, target), **tools}, outputs)
        return ()


def take_parts(job: Job) -> tuple[str, ...]:
    """Take the targets that other processes have exported and proven into the folder; return why it was refused.

    Each counts as finished with the inputs and the bytes that its own build has recorded, so that the step of the
    target finds it done, or makes it again if anything is not what it was made of.
    """
    parts = {target: folder for target, folder in job.given.parts.items() if target in job.order}
    if not parts:
        return ()

    names = {target: f"export {target}" for target in parts}
    for name in names.values():
        job.begin(name)
    if refused := _refusals(
        _exported(job, {"targets": (), "options": {}, "int8": None, "transformersjs": None}, parts)
    ):
        return refused

    for target, folder in parts.items():
        done = read_state(state_path(folder)).finished.get(names[target])
        if done is not None:
            job.finish(names[target], done.inputs, done.outputs)
    return ()


@dataclass(frozen=True)
class FolderStep:
    """All that lies beside the models: no target that the recipe does not name, and PyTorch weights if it asks."""

    job: Job

    @property
    def name(self) -> str:
        """Return the name of the step."""
        return "folder" if self.job.recipe.transformersjs is None else "javascript folder"

    @property
    def _weights(self) -> tuple[str, ...]:
        """Return the names of the weights that the folder holds."""
        return weight_names(self.job.checkpoint) if self.job.recipe.with_weights else ()

    def look(self, standing: Standing, pending: frozenset[str]) -> Look:
        """Return whether the folder holds other targets or weights than the recipe says."""
        manifest = standing.manifest
        if manifest is None:
            return Look("make", standing.damage or "not made yet")

        others = sorted({model.target for model in manifest.models} - set(self.job.order))
        if others and not pending:
            return Look("make", f"{others[0]} is not in the recipe")
        if set(manifest.weights) != set(self._weights):
            return Look("make", "PyTorch weights are missing" if self._weights else "no PyTorch weights are asked for")
        return Look("keep", "it holds what the recipe says, and nothing else")

    def make(self, standing: Standing) -> tuple[str, ...]:  # noqa: ARG002 - the export looks itself
        """Stage the folder again, with the models that stay."""
        js = self.job.recipe.transformersjs
        return _refusals(_exported(self.job, {"targets": (), "options": {}, "int8": None, "transformersjs": js}))


def _exported(job: Job, changes: Mapping[str, object], parts: Mapping[str, Path] | None = None) -> Exported:
    """Export a part of the recipe into the folder, or take parts into it that are exported already."""
    # Weights come with what lies beside the models, and stay meanwhile.
    models = bool(changes["targets"] or parts)
    given = job.recipe.output
    output = given.model_copy(update={"folder": job.out, "overwrite": True, "weights": given.weights and not models})

    recipe = job.recipe.model_copy(update={**changes, "beside": (), "output": output})
    folders = tuple((parts or {}).values())
    return export_step(recipe, BuildStep(job.order, job.oracle, weights=models, parts=folders), job.threads)


def _refusals(exported: Exported) -> tuple[str, ...]:
    """Return why an export was refused, the first reasons; nothing if it was not."""
    if exported.proof is None:
        raise ArtifactError(f"{exported.folder} was not measured. Set proof.check to true in the recipe.")
    if exported.proof.verdict.passed:
        return ()

    reasons = [failure.message for failure in exported.proof.verdict.failures]
    more = [f"and {len(reasons) - REASONS} more reasons"] if len(reasons) > REASONS else []
    return (*reasons[:REASONS], *more, f"what was refused is left in {exported.refused}")


def _model(standing: Standing, target: str) -> Model | None:
    """Return the manifest's record of a target; None if the folder lacks it."""
    models = () if standing.manifest is None else standing.manifest.models
    return next((model for model in models if model.target == target), None)
