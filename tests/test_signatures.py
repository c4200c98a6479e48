"""Functions take few arguments: what walks together through several floors is a noun."""

import ast
from collections.abc import Iterator
from pathlib import Path

import bge_export
from bge_export import commands

PACKAGE = Path(bge_export.__file__).parent
MOST = 6

LONG = {"failure", "plan_split"}
"""Functions with more parameters. `failure` takes the fields of its record by name, `plan_split` two settings."""


def long_functions() -> Iterator[str]:
    """Yield the name of each function with more than `MOST` parameters, except where they are a user's options.

    A user's options are the parameters of commands: of the command line, of the public functions behind it, of `load`.
    """
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "cli":
            continue

        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            public = {"commands": commands.__all__, "loading": bge_export.__all__}.get(path.parent.name, ())
            if not isinstance(node, ast.FunctionDef) or node.name in public:
                continue

            given = node.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            if len([name for name in names if name not in ("self", "cls")]) > MOST:
                yield node.name


def test_no_function_takes_more_than_six_arguments() -> None:
    assert set(long_functions()) == LONG
