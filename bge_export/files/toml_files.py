"""Reads TOML files that people write; errors name the file."""

import tomllib
from pathlib import Path
from typing import Any

from bge_export.errors import UsageError
from bge_export.files.reading import reading
from bge_export.files.regular import read_regular_text

MOST_DOTS = 100
"""Largest number of dots in a line of the file. A name with thousands of parts would nest as many tables."""


def read_toml(path: Path, most_bytes: int, error_type: type[UsageError], what: str) -> dict[str, Any]:
    """Return the table that a TOML file holds.

    Args:
        path: the file.
        most_bytes: the largest allowed size.
        error_type: the class of the errors.
        what: the kind of content, for messages, such as "a file of limits".

    Raises:
        UsageError: of `error_type`; the file is missing, too large, or not TOML in UTF-8.
    """
    try:
        with reading(path, error_type, missing=f"{path} does not exist. Give the path of {what}."):
            text = read_regular_text(path, most_bytes)

        lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
        if any(line.count(".") > MOST_DOTS for line in lines):
            raise ValueError(f"a line has more than {MOST_DOTS} dots")
        return tomllib.loads(text)

    except RecursionError as error:
        raise error_type(f"{path} is not {what}: its values are nested too deeply. Correct it.") from error
    except ValueError as error:
        raise error_type(f"{path} is not valid TOML in UTF-8: {error}. Correct the file.") from error
