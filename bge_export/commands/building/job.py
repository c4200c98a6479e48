"""One build: its recipe, checkpoint and folder, what stands there already, and what is finished."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bge_export.build.recipe import Recipe
from bge_export.build.state import Finished, State, read_state, state_path, write_state
from bge_export.bundle.foreign import own_files
from bge_export.bundle.integrity import MANIFEST, REPORT, refuse_strangers
from bge_export.bundle.manifest import Manifest, read_bundle, read_manifest
from bge_export.bundle.staging import standing_at
from bge_export.commands.exports import open_source
from bge_export.commands.measuring import run_oracle
from bge_export.contracts import Artifact, Checkpoint
from bge_export.errors import ArtifactError, OutputError, ReportError
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.report import ParityReport, read_report
from bge_export.texts.corpus import Corpus

Decision = Literal["keep", "make", "leave"]
"""Whether a step is kept as it is, made, or left out because this machine cannot do it."""


@dataclass(frozen=True)
class Look:
    """What a step needs.

    Attributes:
        decision: whether it is kept, made or left out.
        reason: why, in a few words.
    """

    decision: Decision
    reason: str


@dataclass(frozen=True)
class Standing:
    """What stands in the folder of a build.

    Attributes:
        folder: the folder; after a killed export, where its content was set aside.
        manifest: its manifest; None if there is no folder, or nothing in it can be kept.
        artifacts: its artifacts.
        report: its report, if it is there and nobody edited it.
        damage: why nothing in it can be kept; None if it can.
    """

    folder: Path
    manifest: Manifest | None = None
    artifacts: tuple[Artifact, ...] = ()
    report: ParityReport | None = None
    damage: str | None = None


@dataclass(frozen=True)
class Given:
    """What other processes have made for a build.

    Attributes:
        parts: target -> the folder of a build of that target alone, with its state beside it.
        refused: target -> why it was refused there; it is not tried again.
    """

    parts: Mapping[str, Path] = field(default_factory=dict)
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Step(Protocol):
    """One step of a build."""

    @property
    def name(self) -> str:
        """Return the name of the step, which no other step of the build has."""

    def look(self, standing: Standing, pending: frozenset[str]) -> Look:
        """Return whether the step must be made.

        Args:
            standing: what stands in the folder.
            pending: names of earlier steps that will be made before.
        """

    def make(self, standing: Standing) -> tuple[str, ...]:
        """Make the step, and record that it is finished; return why it was refused, nothing if it was not."""


@dataclass
class Job:
    """One build.

    Attributes:
        recipe: the recipe; a Hub id's revision is the commit that was found when the build began.
        checkpoint: its checkpoint.
        out: the folder.
        threads: threads for export, oracle and runtimes.
        state: what is finished.
        given: what other processes have made for it.
    """

    recipe: Recipe
    checkpoint: Checkpoint
    out: Path
    threads: int
    state: State
    given: Given = Given()
    _vectors: dict[str, ReferenceVectors] = field(default_factory=dict)

    @classmethod
    def open(cls, recipe: Recipe, threads: int, given: Given = Given()) -> "Job":
        """Open the recipe's checkpoint, and read what is finished.

        Raises:
            UsageError: the checkpoint cannot be used.
            HubError: the Hub cannot be asked.
        """
        source = recipe.source
        checkpoint = open_source(source)
        out = Path(os.path.normpath(recipe.output.folder or checkpoint.source.rpartition("/")[2]))

        # A branch may move while the build runs: all steps take the commit that was found now.
        pinned = source.model_copy(update={"revision": checkpoint.revision})
        recipe = recipe.model_copy(update={"source": pinned})
        return cls(recipe, checkpoint, out, threads, read_state(state_path(out)), given)

    @property
    def order(self) -> tuple[str, ...]:
        """Return the recipe's targets, as manifests name them."""
        return tuple(map(str, self.recipe.every_target))

    def begin(self, step: str) -> None:
        """Record that a step writes into the folder from now on."""
        self._write(self.state.with_begun(step))

    def finish(self, step: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        """Record what a step was made of, and what it made."""
        self._write(self.state.with_finished(step, Finished.of(inputs, outputs)))

    def _write(self, state: State) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_state(state, state_path(self.out))
        self.state = state

    def oracle(self, checkpoint: Checkpoint, corpus: Corpus, threads: int) -> ReferenceVectors:
        """Return the checkpoint's vectors of some texts; it is run once for each file of texts."""
        if corpus.digest not in self._vectors:
            self._vectors[corpus.digest] = run_oracle(checkpoint, corpus, threads)
        return self._vectors[corpus.digest]

    def standing(self, *, verify: bool = True) -> Standing:
        """Return what stands in the folder.

        Args:
            verify: whether each file's bytes are compared with the manifest.

        Raises:
            OutputError: the folder holds a file for which the gate would refuse it.
        """
        folder = standing_at(self.out)
        if not (folder / MANIFEST).is_file():
            return Standing(folder)

        try:
            refuse_strangers(folder, own_files(folder))
        except ArtifactError as error:
            raise OutputError(f"{error} Or name another folder in the recipe (output.folder).") from error

        try:
            manifest, artifacts = read_bundle(folder, verify=verify)
        except ArtifactError as error:
            return Standing(folder, damage=str(error).partition(". ")[0])
        return Standing(folder, manifest, artifacts, _report(folder / REPORT))

    def refuse_unknown_targets(self) -> None:
        """Raise OutputError for targets in the folder that no build of it has written: they would be dropped."""
        folder = standing_at(self.out)
        if self.recipe.output.overwrite or not (folder / MANIFEST).is_file():
            return

        known = {name.removeprefix("export ") for name in (*self.state.begun, *self.state.finished)}
        unknown = sorted({model.target for model in read_manifest(folder).models} - known)
        if unknown:
            raise OutputError(
                f"{self.out} has {unknown[0]}, which no build of this folder has written. Name another folder in the "
                "recipe (output.folder), or let it be replaced (output.overwrite = true)."
            )


Tell = Callable[[str], None]
"""Is told what a build is about to do, one line each."""


def _report(path: Path) -> ParityReport | None:
    try:
        report = read_report(path)
    except ReportError:
        return None
    return report if report.digest == report.computed_digest else None
