"""The JSON files of a checkpoint, read with errors that name the file."""

import json
from pathlib import Path

from bge_export.errors import CheckpointError


def read_object(path: Path) -> dict[str, object]:
    """Return the JSON object that a file holds.

    Raises:
        CheckpointError: the file is missing, no JSON, or holds something other than an object.
    """
    value = _read(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object. Fetch the file again.")
    return value


def read_object_if_there(path: Path) -> dict[str, object]:
    """Return the JSON object that a file holds; an empty one where there is no such file.

    Raises:
        CheckpointError: the file is no JSON, or holds something other than an object.
    """
    return read_object(path) if path.is_file() else {}


def read_objects(path: Path) -> list[dict[str, object]]:
    """Return the list of JSON objects that a file holds.

    Raises:
        CheckpointError: the file is missing, no JSON, or holds something other than a list of objects.
    """
    value = _read(path)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CheckpointError(f"{path} does not hold a list of JSON objects. Fetch the file again.")
    return value


def positive_integer(value: object) -> int | None:
    """Return a value that is a positive whole number, else None (JSON's true is none)."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing. Give the whole folder of a transformers checkpoint.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON: {error}. Fetch the file again.") from error
