"""Reads recipes from TOML files and writes them; relative paths begin at the file's folder."""

import os
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from bge_export.build.part import reason_of
from bge_export.build.recipe import Recipe
from bge_export.bundle.integrity import refuse_unknown_output
from bge_export.errors import UsageError
from bge_export.files.regular import LIMITS_BYTES
from bge_export.files.single import refuse_path, written_whole
from bge_export.files.toml_files import read_toml


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file; its relative paths begin at the file's folder.

    Raises:
        UsageError: the file is missing, not TOML, or not a recipe.
    """
    return recipe_of(read_toml(path, LIMITS_BYTES, UsageError, "a recipe"), path)


def recipe_of(table: dict[str, Any], path: Path, place: str = "") -> Recipe:
    """Return the recipe that a table says; its relative paths begin at the file's folder.

    Args:
        table: the table.
        path: the file that holds it.
        place: where the table stands in the file, for messages, such as "build.0."

    Raises:
        UsageError: it is not a recipe.
    """
    try:
        return Recipe.model_validate(table).with_paths(path.parent.joinpath)
    except ValidationError as error:
        raise UsageError(f"{path}: {place}{reason_of(error, Recipe)}. Correct the recipe.") from error


def recipe_toml(recipe: Recipe) -> str:
    """Return the recipe as TOML, without the values that are defaults; `read_recipe` reads it."""
    table = recipe.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return tomli_w.dumps(_without_none(table))


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe to a new TOML file; its relative paths begin at the file's folder.

    Raises:
        OutputError: the file exists already, or its folder does not.
    """
    refuse_path(path, "recipe.toml")
    refuse_unknown_output(path)
    with written_whole(path) as file:
        file.write_text(recipe_toml(recipe.with_paths(lambda one: _from(path.parent, one))), "utf-8")


def _from(folder: Path, path: Path) -> Path:
    """Return a path as seen from a folder; an absolute one stays."""
    return path if path.is_absolute() else Path(os.path.relpath(path, folder))


def _without_none(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a JSON value without missing entries, which TOML cannot hold."""
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return value
