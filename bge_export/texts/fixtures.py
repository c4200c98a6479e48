"""Finds the reviewed parity fixtures: beside the package in a checkout, inside it in an installed wheel."""

from pathlib import Path

from bge_export.errors import UsageError

FOLDER = "parity_fixtures"


def fixtures_folder() -> Path:
    """Return the folder of texts and limits.

    Raises:
        UsageError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent.parent

    # The wheel's own copy first: a folder beside an installed package is foreign.
    for folder in (package / FOLDER, package.parent / FOLDER):
        if folder.is_dir():
            return folder

    raise UsageError(f"{package / FOLDER} is missing: the installation is incomplete. Install bge-export again.")
