"""Says in one sentence why a file that others wrote cannot be read, or which of its fields is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.errors import BgeExportError

if TYPE_CHECKING:
    from pydantic import ValidationError


@contextmanager
def reading(
    path: Path, error_type: type[BgeExportError], *, advice: str = "", missing: str | None = None
) -> Iterator[None]:
    """Raise a project error in place of the system's, while a file is opened and read.

    Args:
        path: the file.
        error_type: the class of the project error.
        advice: the sentence that says what to do next.
        missing: what is said of a file that does not exist; by default that, and the advice.

    Raises:
        BgeExportError: of `error_type`; the file is missing or cannot be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise error_type(missing or f"{path} does not exist. {advice}".strip()) from error
    except OSError as error:
        raise error_type(f"{path} cannot be read: {error.strerror or error}. {advice}".strip()) from error


def first_fault(error: "ValidationError", whole: str = "the file") -> str:
    """Return the first wrong field of a file and what is wrong with it; a wrong schema explains every other fault.

    Args:
        error: what pydantic found.
        whole: the name of what was validated, for a fault of no single field.
    """
    faults = error.errors()
    first = next((fault for fault in faults if fault["loc"] == ("schema",)), faults[0])
    field = ".".join(str(part) for part in first["loc"]) or whole
    return f"{field}: {first['msg']}"
