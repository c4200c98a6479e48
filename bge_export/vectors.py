"""The oracle's vectors as a value and as a file, so that other machines check without torch or the checkpoint."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import POOLINGS, EmbeddingSpec
from bge_export.errors import ReportError
from bge_export.single_file import written_whole

SCHEMA = "bge_export.reference/1"


@dataclass(frozen=True)
class ReferenceVectors:
    """What the oracle says about N texts.

    Attributes:
        source: the checkpoint's Hub id or folder name.
        revision: its Hub commit, if any.
        checkpoint_digest: digest of the checkpoint.
        texts_digest: digest of the texts.
        spec: what the checkpoint promises.
        ids: the N text ids.
        token_ids: the N rows of token ids, by the checkpoint's own tokenizer.
        vectors: pooling -> [N, D] float32. `vectors[spec.pooling]` is the reference; the others are only there to
            recognise an artifact that pools in another way.
        versions: the libraries that computed them.
        kind: whether the checkpoint was run here, or the vectors were read from a file.
    """

    source: str
    revision: str | None
    checkpoint_digest: str
    texts_digest: str
    spec: EmbeddingSpec
    ids: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    vectors: Mapping[str, NDArray[np.float32]]
    versions: Mapping[str, str]
    kind: Literal["checkpoint", "file"]

    def write(self, path: Path) -> None:
        """Write the vectors as `.npz`, through a temporary sibling. The same vectors give the same bytes."""
        facts = {
            "schema": SCHEMA, "source": self.source, "revision": self.revision, "spec": asdict(self.spec),
            "checkpoint_digest": self.checkpoint_digest, "texts_digest": self.texts_digest, "ids": list(self.ids),
            "versions": dict(self.versions),
        }  # fmt: skip
        arrays: dict[str, NDArray[np.generic]] = {f"vectors_{name}": rows for name, rows in self.vectors.items()}
        arrays["token_ids"] = np.asarray([i for row in self.token_ids for i in row], dtype=np.int64)
        arrays["token_counts"] = np.asarray([len(row) for row in self.token_ids], dtype=np.int64)
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def read(cls, path: Path) -> "ReferenceVectors":
        """Read the vectors back.

        Raises:
            ReportError: the file is missing, damaged, of another schema, or its parts do not fit together.
        """
        try:
            # Opened here: numpy leaves the file open where it is no archive.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files}
            facts = json.loads(arrays["facts"].tobytes())
            if facts.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {facts.get('schema')!r}, not {SCHEMA!r}")
            ends = np.cumsum(arrays["token_counts"])
            rows = np.split(arrays["token_ids"], ends[:-1]) if len(ends) else []
            vectors: dict[str, NDArray[np.float32]] = {
                name: arrays[f"vectors_{name}"] for name in POOLINGS if f"vectors_{name}" in arrays
            }
            reference = cls(
                source=facts["source"], revision=facts["revision"], spec=EmbeddingSpec(**facts["spec"]),
                checkpoint_digest=facts["checkpoint_digest"], texts_digest=facts["texts_digest"],
                ids=tuple(facts["ids"]), token_ids=tuple(tuple(int(i) for i in row) for row in rows),
                vectors=vectors, versions=facts["versions"], kind="file",
            )  # fmt: skip
            reference.check()
        except FileNotFoundError as error:
            raise ReportError(f"{path} does not exist. Write it with: bge-export reference MODEL -o {path}") from error
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ReportError(
                f"{path} is no file of reference vectors: {error}. Write one with: bge-export reference MODEL -o {path}"
            ) from error
        return reference

    def check(self) -> None:
        """Raise ValueError unless every part speaks of the same N texts and every vector is finite."""
        count = len(self.ids)
        if len(self.token_ids) != count:
            raise ValueError(f"{len(self.token_ids)} rows of token ids for {count} texts")
        if self.spec.pooling not in self.vectors:
            raise ValueError(f"no vectors for the declared pooling {self.spec.pooling!r}")
        for name, rows in self.vectors.items():
            if rows.shape != (count, self.spec.dim) or rows.dtype != np.float32:
                raise ValueError(f"{name} vectors are {rows.dtype} {rows.shape}, not float32 {(count, self.spec.dim)}")
            if not np.isfinite(rows).all():
                raise ValueError(f"{name} vectors are not all finite")
