"""Reads the JSON files of a checkpoint; errors name the file."""

import json
import re
from pathlib import Path

from bge_export.errors import CheckpointError
from bge_export.files.reading import reading
from bge_export.files.regular import SETTINGS_BYTES, read_regular_text

MOST_DEPTH = 100
"""The deepest allowed nesting of arrays and objects; tokenizers, the deepest of these files, have about 10 levels."""


def read_object(path: Path, most_bytes: int = SETTINGS_BYTES) -> dict[str, object]:
    """Return the JSON object that a file holds.

    Args:
        path: the file.
        most_bytes: the largest allowed size.

    Raises:
        CheckpointError: the file is missing, too large, not valid JSON, or does not hold an object.
    """
    value = _read(path, most_bytes)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object. Fetch the file again.")
    return value


def read_object_if_there(path: Path) -> dict[str, object]:
    """Return the JSON object that a file holds; an empty one if the file does not exist.

    Raises:
        CheckpointError: the file is not valid JSON, or does not hold an object.
    """
    return read_object(path) if path.is_file() else {}


def read_objects(path: Path) -> list[dict[str, object]]:
    """Return the list of JSON objects that a file holds.

    Raises:
        CheckpointError: the file is missing, not valid JSON, or does not hold a list of objects.
    """
    value = _read(path, SETTINGS_BYTES)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CheckpointError(f"{path} does not hold a list of JSON objects. Fetch the file again.")
    return value


WHOLE = re.compile(r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
"""Matches an escaped backslash, or both halves of a character beyond U+FFFF as JSON escapes it."""
HALF = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}|[\ud800-\udfff]")
"""Matches half of such a character where `WHOLE` matches nothing."""


def positive_integer(value: object) -> int | None:
    """Return the value if it is a positive integer, else None (JSON's true does not count)."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def parse(text: str) -> object:
    """Return the value of a JSON text, limited in depth so that recursive code can follow it.

    Raises:
        ValueError: it is not valid JSON, nested too deeply, or has half a character, which no file can hold as UTF-8.
    """
    if half := HALF.search(WHOLE.sub("", text)):
        raise ValueError(f"{half[0]} is half a character (a surrogate alone)")

    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is deeper than {MOST_DEPTH} levels") from error

    # One level at a time: recursion would fail on the very depth that it has to measure.
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MOST_DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [one for ones in inner for one in ones if isinstance(one, (dict, list))]

    if not level:
        return value
    raise ValueError(f"it is deeper than {MOST_DEPTH} levels")


def _read(path: Path, most_bytes: int) -> object:
    missing = f"{path} is missing. Give the whole folder of a transformers checkpoint."
    try:
        with reading(path, CheckpointError, advice="Fetch the file again.", missing=missing):
            return parse(read_regular_text(path, most_bytes))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}. Fetch the file again.") from error
