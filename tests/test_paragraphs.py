"""Code is read in paragraphs: long bodies have blank lines, and the formatter decides how calls are broken."""

import ast
from pathlib import Path

import bge_export

PACKAGE = Path(bge_export.__file__).parent
LONG = 12


def body_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    first, *rest = function.body
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return rest if documented else function.body


def walls(text: str) -> list[str]:
    """Return the functions of several statements whose long body has no blank line."""
    lines = text.split("\n")
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(body := body_of(node)) > 1:
            own = lines[body[0].lineno - 1 : node.end_lineno]
            if len(own) >= LONG and all(line.strip() for line in own):
                found.append(node.name)
    return found


def test_long_bodies_are_set_apart_in_paragraphs() -> None:
    found = {path.relative_to(PACKAGE): walls(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_wall_is_found() -> None:
    lines = [f"    x{number} = {number}" for number in range(LONG)]
    wall = "\n".join(["def wall():", '    """Say so."""', *lines])
    assert walls(wall) == ["wall"]
    assert walls(wall.replace("    x6", "\n    x6")) == []


def test_the_formatter_decides_nearly_everywhere() -> None:
    assert sum(path.read_text("utf-8").count("# fmt: skip") for path in PACKAGE.rglob("*.py")) <= 10
