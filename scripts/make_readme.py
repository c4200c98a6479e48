"""Writes the generated parts of README.md and docs/: real output of commands, the command reference, tables.

    .venv/bin/python scripts/make_readme.py           rewrite the pages
    .venv/bin/python scripts/make_readme.py --check   exit 1 if one differs from what commands and files say

A command stands in a comment before its block, `<!-- run: bge-export … -->`, or `<!-- run, last 4 lines: … -->`; tables
stand in `<!-- table: NAME -->`.
`--check` compares words, not figures: digits of a cosine differ between processors.
"""

import argparse
import html
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[[str, Path], "subprocess.CompletedProcess[str]"]
"""Runs a command line in a folder."""
PAGES = (
    ROOT / "README.md",
    ROOT / "docs/tutorials/first-export.md",
    ROOT / "docs/reference/code_map.md",
    ROOT / "docs/reference/commands.md",
    ROOT / "docs/reference/contract.md",
    ROOT / "docs/reference/consumers.md",
    ROOT / "docs/reference/runtimes.md",
)
BLOCK = re.compile(r"<!-- run(, last (?P<lines>\d+) lines)?: (?P<command>[^\n]*?) -->\n```console\n.*?```\n", re.DOTALL)
TABLE = re.compile(r"<!-- table: (?P<name>\w+) -->\n.*?<!-- end -->\n", re.DOTALL)


def runs_where() -> str:
    """Return the table of formats, precisions and runtimes, from the files that define them."""
    from bge_export.exporters import find_exporter, format_names
    from bge_export.runtimes import find_runtime, runtime_names

    runtimes = [find_runtime(name) for name in runtime_names()]
    lines = ["| format | precisions | runtimes that prove it | devices |", "|---|---|---|---|"]
    for name in format_names():
        exporter = find_exporter(name)
        readers = [runtime for runtime in runtimes if name in runtime.formats]
        devices = "; ".join(f"{runtime.name}: {', '.join(runtime.devices())}" for runtime in readers)
        precisions = ", ".join(exporter.precisions)
        lines.append(f"| {name} | {precisions} | {', '.join(r.name for r in readers)} | {devices} |")
    return "\n".join(lines)


def precisions() -> str:
    """Return the table of precisions, from the constant of each."""
    from bge_export.precision import precisions as known

    lines = ["| precision | bits | what it is | files | `dtype` of clients |", "|---|---|---|---|---|"]
    for one in known():
        files = ", ".join(f"`{name}`" for name in one.files.values())
        dtype = f"`{one.client_dtype}`" if one.client_dtype else "none"
        lines.append(f"| {one.name} | {one.bits} | {one.help} | {files} | {dtype} |")
    return "\n".join(lines)


def code_map() -> str:
    """Return one line a module: the first sentence of its docstring."""
    import ast

    lines = ["```"]
    for path in sorted((ROOT / "bge_export").rglob("*.py")):
        name = path.relative_to(ROOT / "bge_export").as_posix()
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        lines.append(f"{name:28} {doc.splitlines()[0] if doc else ''}".rstrip())
    return "\n".join([*lines, "```"])


def commands() -> str:
    """Return the help of every command as Markdown, by typer's own generator."""
    command = [sys.executable, "-m", "typer", "bge_export.cli", "utils", "docs", "--name", "bge-export"]
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return html.unescape(done.stdout).strip()


def contract_schema() -> str:
    """Return the JSON schema of contracts."""
    return f"```json\n{schema_text()}```"


def schema_text() -> str:
    """Return the JSON schema as the package ships it."""
    import json

    from bge_export.bundle.contract import Contract

    return json.dumps(Contract.model_json_schema(), indent=2) + "\n"


def consumers() -> str:
    """Return the table of what libraries make of a folder, from the last report of `scripts/consumers`."""
    sys.path.insert(0, str(ROOT / "lab"))
    from consumer_table import table

    return table()


def own_libraries() -> str:
    """Return the table of the libraries that each kind of model was made for, from the last report."""
    sys.path.insert(0, str(ROOT / "lab"))
    from consumer_table import own_table

    return own_table()


TABLES = {
    "runs_where": runs_where,
    "precisions": precisions,
    "code_map": code_map,
    "commands": commands,
    "contract_schema": contract_schema,
    "consumers": consumers,
    "own_libraries": own_libraries,
}


def in_bash(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command as a reader does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    return subprocess.run(
        ["/bin/bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def output(command: str, folder: Path, last: int | None, run: Run) -> str:
    """Return a console block: the command, its standard output or the last lines of it, its exit status if not 0."""
    done = run(command, folder)
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    shown = printed if last is None else ["…", *printed[-last:]]
    lines = [f"$ {command}", *shown]
    if done.returncode:
        lines += [f"$ echo $?\n{done.returncode}"]
    return "\n".join(lines)


def written(text: str, run: Run = in_bash) -> str:
    """Return a page with every block and table made again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "parity_fixtures").symlink_to(ROOT / "parity_fixtures")

        def block(match: re.Match[str]) -> str:
            command, lines = match["command"], match["lines"]
            printed = output(command, folder, None if lines is None else int(lines), run)
            comment = match[0].partition("\n")[0]
            return f"{comment}\n```console\n{printed}\n```\n"

        text = BLOCK.sub(block, text)
    return TABLE.sub(lambda m: f"<!-- table: {m['name']} -->\n{TABLES[m['name']]()}\n<!-- end -->\n", text)


def words(text: str) -> list[str]:
    """Return what a reader compares: everything but figures, digests and the width of columns."""
    return re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b|[0-9][0-9.e+-]*", "#", text).split()


def first_difference(page: Path, run: Run = in_bash) -> str | None:
    """Return where a page says other words than commands and files; None if it says the same."""
    old = words(page.read_text("utf-8"))
    new = words(written(page.read_text("utf-8"), run))
    if old == new:
        return None

    pairs = zip(old, new, strict=False)
    return f"{page.name} is out of date, first at: {next((pair for pair in pairs if pair[0] != pair[1]), 'its end')}"


def main() -> int:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    if not check:
        (ROOT / "bge_export/bundle/embedding.schema.json").write_text(schema_text(), "utf-8")

    for page in PAGES:
        if not check:
            page.write_text(written(page.read_text("utf-8")), "utf-8")
        elif (found := first_difference(page)) is not None:
            print(found)
            print("Run: .venv/bin/python scripts/make_readme.py")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
