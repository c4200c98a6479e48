"""A file for `build`: one recipe, or a fleet, many recipes that share what they have in common.

A fleet is `[[build]]` tables, each a recipe, and `[defaults]` for what they do not say themselves.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_export.build.part import unknown_key
from bge_export.build.recipe import Recipe
from bge_export.build.recipe_file import recipe_of
from bge_export.errors import UsageError
from bge_export.files.regular import LIMITS_BYTES
from bge_export.files.toml_files import read_toml

KEYS = ("defaults", "build")


def read_builds(path: Path) -> tuple[Recipe, ...]:
    """Return the recipes of a file: one, or those of a fleet.

    Raises:
        UsageError: the file is missing, not TOML, not a recipe or a fleet, or two recipes write to one folder.
    """
    table = read_toml(path, LIMITS_BYTES, UsageError, "a recipe or a fleet")
    if not set(KEYS) & set(table):
        return (recipe_of(table, path),)

    if unknown := [key for key in table if key not in KEYS]:
        raise UsageError(f"{path}: {unknown[0]}: {unknown_key(unknown[0], KEYS)}. Correct the fleet.")

    defaults, builds = table.get("defaults", {}), table.get("build", [])
    tables = isinstance(builds, list) and all(isinstance(one, dict) for one in builds)
    if not builds or not tables or not isinstance(defaults, dict):
        raise UsageError(f"{path}: a fleet is one or more tables [[build]], and perhaps [defaults]. Correct the fleet.")

    recipes = tuple(
        recipe_of(_merged(defaults, own), path, f"build.{number}: ") for number, own in enumerate(builds, 1)
    )
    _refuse_one_folder(path, recipes)
    return recipes


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with defaults where it says nothing; tables in it are merged, lists replaced."""
    both = {
        key: _merged(defaults[key], own[key])
        for key in defaults.keys() & own.keys()
        if isinstance(defaults[key], dict) and isinstance(own[key], dict)
    }
    return {**defaults, **own, **both}


def _refuse_one_folder(path: Path, recipes: tuple[Recipe, ...]) -> None:
    """Raise UsageError if two recipes write to one folder: each would drop what the other wrote."""
    seen: dict[str, int] = {}
    for number, recipe in enumerate(recipes, 1):
        folder = os.path.realpath(recipe.output.folder or Path(recipe.source.model).name)
        other = seen.setdefault(folder, number)
        if other != number:
            raise UsageError(
                f"{path}: build.{other} and build.{number} both write to {recipe.output.folder or Path(folder).name}. "
                "Give each a folder of its own (output.folder)."
            )
