"""The steps of a build that measure what is in the folder: one for each runtime and device, one for own texts.

The report itself says what is measured: of which bytes, texts and checkpoint, with which versions. No other record of
it is kept, so a lane that an export or another machine measured counts too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bge_export.bundle.integrity import REPORT
from bge_export.bundle.staging import replaced_file
from bge_export.commands.building.job import Job, Look, Standing
from bge_export.commands.checking import check_parity
from bge_export.commands.extension import kept_from
from bge_export.commands.measuring import measure_folder, read_policy
from bge_export.commands.proving import with_earlier
from bge_export.commands.transformersjs import PROVING
from bge_export.commands.turns import in_turn
from bge_export.contracts import Artifact
from bge_export.errors import ReportError
from bge_export.formats import find_format
from bge_export.parity.gate.policy import Requirement
from bge_export.parity.measure.environment import version_of
from bge_export.parity.measure.measurement import Measurement, RuntimeDevice
from bge_export.parity.measure.sweep import ids_swept
from bge_export.parity.report import ParityReport, read_report, write_report
from bge_export.runtimes import find_runtime
from bge_export.texts.corpus import builtin_corpus, load_corpus

OWN_TEXTS = "parity-texts.json"
"""The report on texts of your own; a name that may lie in a folder unlisted."""


@dataclass(frozen=True)
class LaneStep:
    """All targets in one runtime on one device.

    Attributes:
        job: the build.
        device: the runtime and device.
        targets: the targets to measure there; None for all that the runtime reads.
    """

    job: Job
    device: RuntimeDevice
    targets: frozenset[str] | None

    @property
    def name(self) -> str:
        """Return the name of the step."""
        return f"parity {lane_name(self.device)}"

    def look(self, standing: Standing, pending: frozenset[str]) -> Look:
        """Return whether the report has this lane of each target."""
        read = [t for t in self.job.order if self._concerns(t)]
        if later := [target for target in read if f"export {target}" in pending]:
            return Look("make", f"{later[0]} is exported before")

        missing = self._missing(standing)
        if not missing:
            return Look("keep", "measured of these bytes, with these versions")
        if (why := self.device.runtime.devices().get(self.device.device, "there is no such device")) is not None:
            return Look("leave", f"this machine cannot: {why}")
        return Look("make", f"{missing[0].target} is not measured there with these bytes, texts and versions")

    def _concerns(self, target: str) -> bool:
        """Return whether a target has to be measured here, as far as its name tells."""
        wanted = self.targets is None or target in self.targets
        return wanted and target.partition("-")[0] in self.device.runtime.formats

    def _missing(self, standing: Standing) -> list[Artifact]:
        concerned = [one for one in standing.artifacts if self._concerns(str(one.target)) and self.device.reads(one)]
        report, texts = standing.report, builtin_corpus(pairs=self.job.checkpoint.spec.is_reranker).digest
        if report is None or (report.checkpoint.digest, report.texts.digest) != (self.job.checkpoint.digest, texts):
            return concerned

        known = measured_in(report, self.device)
        return [one for one in concerned if not {(one.digest, output) for output in one.outputs} <= known]

    def make(self, standing: Standing) -> tuple[str, ...]:
        """Measure what the report lacks, and join it with the rest."""
        measure_lane(self.job, standing.folder, self._missing(standing), self.device)
        return ()


@in_turn
def measure_lane(job: Job, folder: Path, missing: Sequence[Artifact], device: RuntimeDevice) -> None:
    """Measure some artifacts of a folder in one lane, and write the report with the lanes that are still valid.

    Raises:
        MeasurementError: the oracle or the runtime cannot be run.
    """
    corpus = builtin_corpus(pairs=job.checkpoint.spec.is_reranker)
    kept = kept_from(folder, job.checkpoint, (), overwrite=False)
    earlier = kept.lanes(job.standing(verify=False).artifacts, corpus, job.checkpoint)
    reference = job.oracle(job.checkpoint, corpus, job.threads)

    # A lane that is measured again leaves the report, and its sweep with it.
    replaced = {(one.digest, device.runtime.name, device.device) for one in missing}
    stay = [lane for lane in earlier if (lane.artifact_digest, lane.runtime, lane.device) not in replaced]
    every = ids_swept(reference.sweep)
    swept = frozenset(lane.artifact_digest for lane in stay if lane.sweep is not None and lane.sweep.ids >= every)
    measurement = Measurement(corpus, reference, job.threads, swept=swept)

    fresh = measure_folder(measurement, folder, missing, [device])
    artifacts = job.standing(verify=False).artifacts
    targets = tuple(sorted({str(one.target) for one in artifacts}))
    own = fresh.model_copy(update={"targets": targets}).sealed()

    report = with_earlier(own, kept.report, kept.lanes(artifacts, corpus, job.checkpoint))
    with replaced_file(folder, REPORT) as temporary:
        write_report(report, temporary)


@dataclass(frozen=True)
class TextsStep:
    """Texts of your own, in every lane of the build that this machine has; a report apart."""

    job: Job
    file: Path
    column: str | None
    devices: Sequence[RuntimeDevice]

    name = "parity of own texts"

    def look(self, standing: Standing, pending: frozenset[str]) -> Look:
        """Return whether the report on these texts is about these bytes."""
        if later := sorted(name for name in pending if name.startswith("export ")):
            return Look("make", f"{later[0].removeprefix('export ')} is exported before")

        corpus = load_corpus(self.file, self.column)
        try:
            report = read_report(standing.folder / OWN_TEXTS)
        except ReportError:
            return Look("make", "not measured yet")

        facts = (report.digest, report.checkpoint.digest, report.texts.digest)
        if facts != (report.computed_digest, self.job.checkpoint.digest, corpus.digest):
            return Look("make", "its report is about other texts, or about another checkpoint")

        for device in self._here():
            known = measured_in(report, device)
            for one in standing.artifacts:
                if device.reads(one) and not {(one.digest, output) for output in one.outputs} <= known:
                    return Look("make", f"{one.target} is not measured in {lane_name(device)} with these bytes")

        return Look("keep", "measured of these bytes and texts, with these versions")

    def _here(self) -> list[RuntimeDevice]:
        """Return the lanes that this machine has."""
        return [one for one in self.devices if one.runtime.devices().get(one.device, "") is None]

    def make(self, standing: Standing) -> tuple[str, ...]:
        """Measure the texts; the limits are those of the recipe."""
        recipe = self.job.recipe
        lanes = [lane_name(one) for one in self._here() if any(map(one.reads, standing.artifacts))]

        with replaced_file(standing.folder, OWN_TEXTS) as temporary:
            check_parity(
                standing.folder,
                recipe.source.model,
                revision=recipe.source.revision,
                texts=self.file,
                column=self.column,
                lanes=lanes,
                thresholds=recipe.proof.thresholds,
                report_path=temporary,
                threads=self.job.threads,
            )
        return ()


def lane_steps(job: Job) -> list[LaneStep]:
    """Return the lanes of a build: each format's own runtimes on the CPU, the clients, and what the recipe requires."""
    formats = dict.fromkeys(target.format for target in job.recipe.every_target)
    lanes: dict[tuple[str, str], frozenset[str] | None] = {
        (runtime, "cpu"): None for name in formats for runtime in find_format(name).runtimes
    }
    if job.recipe.transformersjs is not None:
        lanes |= {("transformersjs", device): None for device in PROVING}

    policy = read_policy(job.recipe.proof.thresholds)
    for one in (*policy.require, *map(Requirement.parse, job.recipe.proof.require)):
        key = one.runtime, one.device
        before = lanes.get(key, frozenset())
        lanes[key] = None if before is None or one.target is None else before | {one.target}

    return [
        LaneStep(job, RuntimeDevice(find_runtime(runtime), device, requested=False), targets)
        for (runtime, device), targets in lanes.items()
    ]


def measured_in(report: ParityReport, device: RuntimeDevice) -> set[tuple[str, str]]:
    """Return the digests of artifacts, and their outputs, that a report has in a lane, by the versions of today."""
    library = device.runtime.library
    now = {name: version_of(name) for name in ("bge-export", library)}
    runs = {name for name, run in report.runs.items() if now.items() <= run.environment.items()}

    return {
        (lane.artifact_digest, lane.output)
        for lane in report.lanes
        if lane.measured and lane.run in runs and (lane.runtime, lane.device) == (device.runtime.name, device.device)
    }


def lane_name(device: RuntimeDevice) -> str:
    """Return a runtime and device as users name them."""
    return f"{device.runtime.name}:{device.device}"
