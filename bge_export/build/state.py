"""What a build has finished: a small file beside the folder, `.FOLDER.bge-export.build.json`.

A step is known by its key, the digest of its inputs: digests of files, options, versions. The file holds the inputs
too, so that a build can say what changed. It proves nothing, and names no machine: whoever removes it only loses time.
It lies beside the folder, since every file in the folder is one that the gate knows.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bge_export.files.regular import SETTINGS_BYTES, read_regular

SCHEMA: Literal["bge_export.build/1"] = "bge_export.build/1"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Finished(_Record):
    """One finished step.

    Attributes:
        key: the digest of its inputs.
        inputs: what it was made of: name -> digest, option or version.
        outputs: what it made: name -> digest.
    """

    key: str
    inputs: dict[str, str]
    outputs: dict[str, str]

    @classmethod
    def of(cls, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> "Finished":
        """Return the record of a step with its key."""
        return cls(key=key_of(inputs), inputs=dict(inputs), outputs=dict(outputs))

    def change(self, inputs: Mapping[str, str]) -> str | None:
        """Return what is different now, in a few words; None if the key is the same."""
        if self.key == key_of(inputs):
            return None

        names = [name for name in {**self.inputs, **inputs} if self.inputs.get(name) != inputs.get(name)]
        name = names[0] if names else "its record"
        before, after = self.inputs.get(name, "none"), inputs.get(name, "none")
        return f"{name} is {after} instead of {before}" if _is_version(before, after) else f"{name} changed"


class State(_Record):
    """The state of a build.

    Attributes:
        begun: steps that an export was begun for, whether or not it was finished: what they wrote is the build's own.
        finished: step -> what it was made of.
    """

    schema_: Literal["bge_export.build/1"] = SCHEMA
    begun: tuple[str, ...] = ()
    finished: dict[str, Finished] = {}

    def with_begun(self, step: str) -> "State":
        """Return the state in which a step is begun; what it had made before counts no more."""
        finished = {name: one for name, one in self.finished.items() if name != step}
        return self.model_copy(update={"begun": tuple(sorted({*self.begun, step})), "finished": finished})

    def with_finished(self, step: str, done: Finished) -> "State":
        """Return the state in which a step is finished."""
        return self.model_copy(update={"finished": {**self.finished, step: done}})


def key_of(inputs: Mapping[str, str]) -> str:
    """Return the key of a step: the sha256 of its inputs, whatever their order."""
    return hashlib.sha256(json.dumps(dict(inputs), sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def state_path(out: Path) -> Path:
    """Return the path of the state of the folder at `out`."""
    out = Path(os.path.abspath(out))
    return out.with_name(f".{out.name}.bge-export.build.json")


def read_state(path: Path) -> State:
    """Return the state that a file holds; an empty one if it is missing or not valid, since it proves nothing."""
    try:
        fields = json.loads(read_regular(path, SETTINGS_BYTES))
        return State.model_validate({"schema_": fields.pop("schema", None), **fields, "begun": tuple(fields["begun"])})
    except (OSError, ValueError, ValidationError, TypeError, KeyError, AttributeError, RecursionError):
        return State()


def write_state(state: State, path: Path) -> None:
    """Write the state, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    fields = state.model_dump(mode="json")
    write_json({"schema": fields.pop("schema_"), **fields}, path, path.with_name(f"{path.name}.tmp"))


def write_json(fields: Mapping[str, object], path: Path, temporary: Path) -> None:
    """Write a file of a build whole or not at all.

    Args:
        fields: its content.
        path: the file.
        temporary: what is written first and renamed, one name in each build: what a killed one has left is replaced.

    Raises:
        OSError: it cannot be written.
    """
    try:
        temporary.write_text(json.dumps(fields, indent=1, ensure_ascii=False) + "\n", "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_version(*values: str) -> bool:
    """Return whether values are short enough to be shown: versions, not digests or tables."""
    return all(len(value) <= 24 and not value.startswith(("{", "[")) for value in values)
