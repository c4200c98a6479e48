"""The steps of a build that score tasks: one for each file of pairs and each lane. Scores are facts; none judges."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bge_export.build.release import Evaluation
from bge_export.build.state import state_path, write_json
from bge_export.commands.analysis import evaluate_pairs
from bge_export.commands.building.job import Job, Look, Standing
from bge_export.commands.measuring import named_device
from bge_export.errors import TextsError, UsageError
from bge_export.files.digest import file_sha256
from bge_export.files.reading import reading
from bge_export.files.regular import SETTINGS_BYTES, read_regular
from bge_export.files.single import refuse_path
from bge_export.parity.measure.environment import version_of

SCHEMA = "bge_export.scores/1"
OURS = re.compile(rb'\A\s*{\s*"schema"\s*:\s*"bge_export\.scores/')
"""Matches the beginning of a file of scores that a build wrote."""


def refuse_unclear_scores(wanted: Evaluation) -> None:
    """Raise UsageError if a lane is not one, or if two files would have the same name among the scores."""
    for lane in wanted.lanes:
        named_device(lane)

    names = [_task(pairs) for pairs in wanted.pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"evaluation.pairs: two files are called {twice[0]}. Rename one of them, or its folder.")


def scores_path(out: Path) -> Path:
    """Return the path of the scores of the folder at `out`, beside it."""
    return out.with_name(f"{out.name}.scores.json")


def read_scores(path: Path) -> dict[str, Any]:
    """Return step -> its scores; nothing if there is no such file of ours."""
    try:
        fields = json.loads(read_regular(path, SETTINGS_BYTES))
        return dict(fields["scores"]) if fields["schema"] == SCHEMA else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


@dataclass(frozen=True)
class ScoresStep:
    """Every artifact that a runtime reads, on one file of scored pairs."""

    job: Job
    pairs: Path
    lane: str

    @property
    def name(self) -> str:
        """Return the name of the step; the task's name is that of its folder, as for `evaluate`."""
        return f"scores {_task(self.pairs)} {self.lane}"

    def _inputs(self, standing: Standing) -> dict[str, str]:
        with reading(self.pairs, TextsError, advice="Correct evaluation.pairs in the recipe."):
            pairs = file_sha256(self.pairs)

        libraries = ("bge-export", named_device(self.lane).runtime.library, "scipy")
        artifacts = {str(one.target): one.digest for one in standing.artifacts}
        versions = {f"version of {name}": version_of(name) for name in libraries}
        return {"artifacts": json.dumps(artifacts, sort_keys=True), "pairs": pairs, **versions}

    def look(self, standing: Standing, pending: frozenset[str]) -> Look:
        """Return whether these artifacts were scored on these pairs, and the scores are still those."""
        inputs = self._inputs(standing)
        if later := sorted(name for name in pending if name.startswith("export ")):
            return Look("make", f"{later[0].removeprefix('export ')} is exported before")

        done = self.job.state.finished.get(self.name)
        if done is None:
            return Look("make", "not scored yet")
        if change := done.change(inputs):
            return Look("make", change)

        scores = read_scores(scores_path(self.job.out)).get(self.name)
        same = scores is not None and done.outputs == {"scores": _digest(scores)}
        return Look("keep", "same artifacts, pairs and versions") if same else Look("make", "its scores are gone")

    def make(self, standing: Standing) -> tuple[str, ...]:
        """Score, and write all scores of the build into one file."""
        path = scores_path(self.job.out)
        refuse_path(path, "file of scores", OURS)

        device = named_device(self.lane)
        found = evaluate_pairs(
            standing.folder,
            self.pairs,
            runtime=device.runtime.name,
            device=device.device,
            threads=self.job.threads,
        )

        scores = [asdict(one) for one in found]
        kept = {name: one for name, one in read_scores(path).items() if name in self.job.state.finished}
        fields = {"schema": SCHEMA, "scores": dict(sorted({**kept, self.name: scores}.items()))}
        write_json(fields, path, state_path(self.job.out).with_suffix(".scores.tmp"))
        self.job.finish(self.name, self._inputs(standing), {"scores": _digest(scores)})
        return ()


def scores_steps(job: Job) -> list[ScoresStep]:
    """Return a step for each file of pairs and each lane that the recipe names."""
    wanted = job.recipe.evaluation
    return [] if wanted is None else [ScoresStep(job, pairs, lane) for pairs in wanted.pairs for lane in wanted.lanes]


def scores_of(job: Job) -> dict[str, Any]:
    """Return the scores that the steps of a build have made."""
    names = {step.name for step in scores_steps(job)}
    return {name: one for name, one in read_scores(scores_path(job.out)).items() if name in names}


def _task(pairs: Path) -> str:
    """Return the name of a file of pairs: its own, and that of its folder."""
    return f"{pairs.parent.name}/{pairs.name}"


def _digest(scores: object) -> str:
    return hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()
