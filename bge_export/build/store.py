"""A store of finished parts: folders under a path or a URL (`s3://…`), each written whole or not at all.

A part's files come first; `part.json`, which lists their digests, comes last. What is fetched is compared with that
list, so a part that somebody is writing, or that was damaged on its way, is one that is not there.
"""

import json
import posixpath
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bge_export.errors import MeasurementError, MissingLibrary
from bge_export.files.digest import file_digests, file_sha256
from bge_export.files.regular import SETTINGS_BYTES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LIST = "part.json"
SCHEMA: Literal["bge_export.part/1"] = "bge_export.part/1"


class _Listed(BaseModel):
    """The list of a part: relative POSIX path -> sha256 of its bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Literal["bge_export.part/1"] = Field(alias="schema")
    files: dict[str, str]


class Store:
    """Parts by their keys, in a folder of any file system that fsspec knows."""

    def __init__(self, url: str) -> None:
        """Open the store; nothing is written.

        Args:
            url: a path, or a URL such as `s3://bucket/folder`. Every process of a fleet must reach it.

        Raises:
            MissingLibrary: fsspec, or what it needs for this URL, is not installed.
            MeasurementError: there is no such kind of URL.
        """
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise MissingLibrary("fsspec", "fleet", "A store of parts") from error

        try:
            system, root = url_to_fs(url)
        except ImportError as error:
            raise MeasurementError(f"{_shown(url)}: {error}") from error
        except ValueError as error:
            raise MeasurementError(f"{_shown(url)} is no store: {error}. Give a path or a URL with --store.") from error

        self._system: AbstractFileSystem = system
        self._root = root.rstrip("/")
        self.shown = _shown(url)

    def holds(self, key: str) -> bool:
        """Return whether a part is there, as its list says; its bytes are compared when it is fetched."""
        return self._listed(key) is not None

    def put(self, key: str, folder: Path) -> None:
        """Copy all files of a folder into the store, the list last.

        Raises:
            MeasurementError: the store cannot be written.
        """
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        listed = {"schema": SCHEMA, "files": file_digests(folder, names)}

        try:
            for name in names:
                where = self._at(key, name)
                self._system.makedirs(posixpath.dirname(where), exist_ok=True)
                self._system.put_file(str(folder / name), where)
            self._write(self._at(key, LIST), json.dumps(listed, indent=1).encode())
        except OSError as error:
            raise MeasurementError(f"{self.shown}: the store cannot be written: {error}") from error

    def get(self, key: str, folder: Path) -> bool:
        """Copy a part into a new folder; return False and leave none if it is missing, or not what its list says.

        Raises:
            MeasurementError: the store cannot be read.
        """
        listed = self._listed(key)
        if listed is None:
            return False

        folder.mkdir(parents=True)
        try:
            for name, digest in listed.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._system.get_file(self._at(key, name), str(path))
                if file_sha256(path) != digest:
                    raise FileNotFoundError(name)
        except FileNotFoundError:
            shutil.rmtree(folder)
            return False
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise MeasurementError(f"{self.shown}: the store cannot be read: {error}") from error
        return True

    def _listed(self, key: str) -> Mapping[str, str] | None:
        """Return name -> digest of a part; None if it is missing, or its list is not one of ours."""
        try:
            with self._system.open(self._at(key, LIST), "rb") as stream:
                raw = stream.read(SETTINGS_BYTES)
            listed = _Listed.model_validate(json.loads(raw))
        except FileNotFoundError:
            return None
        except (ValueError, ValidationError, RecursionError):
            return None
        except OSError as error:
            raise MeasurementError(f"{self.shown}: the store cannot be read: {error}") from error
        return listed.files if all(map(_is_inside, listed.files)) else None

    def _write(self, where: str, content: bytes) -> None:
        """Write a small file whole or not at all: object stores do so by themselves, folders by a rename."""
        temporary = f"{where}.tmp"
        self._system.pipe_file(temporary, content)
        self._system.mv(temporary, where)

    def _at(self, key: str, name: str) -> str:
        return f"{self._root}/{key}/{name}"


def _is_inside(name: str) -> bool:
    """Return whether a name of a list is a plain relative path, which leads nowhere else."""
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and "\\" not in name and ":" not in name
    return name not in ("", ".") and plain and "\0" not in name and path.as_posix() == name


def _shown(url: str) -> str:
    """Return a store as messages show it: a path whole, of a URL nothing where a secret may stand in it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}://…" if separator and set("@?#") & set(rest) else url
