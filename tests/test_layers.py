"""Imports follow the arrow, and light commands load nothing heavy."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import bge_export
from bge_export.heads.dense import DenseHead

PACKAGE = Path(bge_export.__file__).parent
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "openvino", "scipy", "onnx_ir"}
FOR_FILES = {"numpy", "tokenizers", "safetensors", "huggingface_hub", "jinja2", "filelock"}
"""Not as heavy, but of no use before a command reads a file."""

ROOMS = (
    "errors",
    "contracts",
    "capabilities",
    "memory",
    "plugins",
    "heads",
    "files",
    "progress",
    "texts",
    "sweep",
    "checkpoint",
    "oracle",
    "graph",
    "saturation",
    "formats",
    "encoder",
    "calibration",
    "precision",
    "token_tables",
    "exporters",
    "javascript",
    "runtimes",
    "bundle",
    "parity",
    "loading",
    "foreign",
    "compatibility",
    "inspection",
    "bench",
    "evaluate",
    "same_index",
    "programs",
    "build",
    "publish",
    "commands",
    "cli",
)
"""From the ground up: each room imports itself and those before it, nothing else of the package."""

FLOORS = {
    "parity": ("figures", "report", "worst", "orders", "measure", "merge", "gate", "show"),
    "precision/int8": ("plan", "round", "write", "search", "quantize"),
}
"""The same inside a room. Facts come before judgement: neither reports nor measuring can ask what passes."""

STRANGERS = {
    "oracle": ("bge_export.texts.tokens", "bge_export.graph"),
    "exporters": ("bge_export.oracle",),
    "precision": ("bge_export.oracle", "bge_export.exporters"),
    "runtimes": ("bge_export.oracle", "bge_export.exporters"),
    "parity": ("bge_export.oracle.eager", "bge_export.exporters"),
    "bench": ("bge_export.oracle", "bge_export.exporters"),
    "checkpoint/model": ("bge_export.heads", "bge_export.texts"),
}
"""Room or module -> what it must not import although that stands below it."""


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(owner: str) -> list[Path]:
    single = PACKAGE / f"{owner}.py"
    files = [single] if single.is_file() else sorted((PACKAGE / owner).rglob("*.py"))
    assert files, owner
    return files


def dotted(file: Path) -> str:
    name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {dotted(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def upward(order: tuple[str, ...], inside: str) -> list[str]:
    """Return the imports in a package that lead from one of its parts to a later one."""
    found = []
    for module, file in MODULES.items():
        if not module.startswith(f"{inside}."):
            continue
        part = module.removeprefix(f"{inside}.").partition(".")[0]
        if part == "__main__":
            continue
        for name in imported(file):
            other = name.removeprefix(f"{inside}.").partition(".")[0]
            if name.startswith(f"{inside}.") and other in order and order.index(other) > order.index(part):
                found.append(f"{module} imports {name}")
    return found


def test_every_module_stands_in_a_room_and_imports_nothing_above_it() -> None:
    rooms = {module.split(".")[1] for module in MODULES if "." in module} - {"__main__"}
    assert rooms == set(ROOMS)
    assert upward(ROOMS, "bge_export") == []


@pytest.mark.parametrize("room", FLOORS)
def test_parts_of_a_room_import_nothing_above_them(room: str) -> None:
    inside = f"bge_export.{room.replace('/', '.')}"
    parts = {
        module.removeprefix(f"{inside}.").partition(".")[0] for module in MODULES if module.startswith(f"{inside}.")
    }
    assert parts == set(FLOORS[room])
    assert upward(FLOORS[room], inside) == []


def test_the_root_holds_few_modules_and_int8_few_parts() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    assert len([part for part in (PACKAGE / "precision/int8").iterdir() if part.name[0] != "_"]) <= 5


@pytest.mark.parametrize("owner", STRANGERS)
def test_what_must_not_know_each_other_does_not(owner: str) -> None:
    for file in files_of(owner):
        for name in imported(file):
            assert not name.startswith(STRANGERS[owner]), f"{file.relative_to(PACKAGE)} imports {name}"


def test_the_oracle_reads_what_a_head_promises_and_runs_none_of_its_code() -> None:
    for file in files_of("oracle"):
        taken = {name for name in imported(file) if name.startswith("bge_export.heads")}
        assert taken <= {"bge_export.heads.dense", "bge_export.heads.dense.dense_head"}, file
        calls = [node.func for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        used = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        assert not used & {name for name in vars(DenseHead) if callable(vars(DenseHead)[name]) and name[0] != "_"}, file


def test_no_imports_go_in_circles() -> None:
    """Public names and those that `__init__` lists for types alone are left out: nothing is loaded by them."""
    graph = {
        module: {name for name in imported(file) if name in MODULES} - {module}
        for module, file in MODULES.items()
        if module != "bge_export"
    }
    with_circle = set(graph)
    while leaves := {module for module in with_circle if not graph[module] & with_circle}:
        with_circle -= leaves
    assert with_circle == set()


def test_helpers_of_tests_lie_in_a_folder_of_their_own() -> None:
    beside = [path.name for path in Path(__file__).parent.glob("*.py")]
    assert [name for name in beside if not name.startswith("test_")] == ["conftest.py"]


def test_only_the_command_line_prints_or_exits() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit"), f"{file}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                pair = f"{node.value.id}.{node.attr}"
                assert pair not in ("os.environ", "sys.exit", "os.getenv"), f"{file}:{node.lineno} uses {pair}"


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import bge_export") & (HEAVY | {"numpy", "pydantic"})


def test_help_loads_rich_and_nothing_heavy() -> None:
    unneeded = HEAVY | FOR_FILES | {"pydantic", "email"}
    assert loaded_after("from bge_export.cli import run\nassert run(['--help']) == 0") & unneeded == set()


def test_help_of_a_command_loads_nothing_heavy() -> None:
    """Typer itself reads a command's arguments with pydantic."""
    code = (
        "import typer\nfrom bge_export.cli import app, run\n"
        "names = sorted(typer.main.get_command(app).commands)\nassert len(names) > 10\n"
        "for name in names:\n    assert run([name, '--help']) == 0"
    )
    assert loaded_after(code) & (HEAVY | FOR_FILES) == set()


def test_a_process_that_measures_memory_loads_no_more_than_it_must() -> None:
    assert not loaded_after("import bge_export.bench.fresh") & (HEAVY | {"pydantic", "rich", "typer"})


def test_gating_needs_none_of_the_heavy_libraries(tiny_export, tmp_path: Path) -> None:
    code = f"from bge_export.cli import run\nassert run(['gate', {str(tiny_export.proof.path)!r}]) == 0"
    assert not loaded_after(code) & HEAVY


def test_public_names_are_listed_once_and_each_is_there() -> None:
    """The stub is the list: type checkers read it as it stands, and the package takes its names from it."""
    loader = (PACKAGE / "__init__.py").read_text("utf-8")
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text("utf-8"))
    listed = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {path.rpartition(".")[2] for path in listed} == set(bge_export.__all__)

    for path in listed:
        module, _, name = path.rpartition(".")
        assert not re.search(rf"\b{name}\b", loader)
        assert getattr(bge_export, name) is getattr(import_module(module), name)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        bge_export.nothing  # noqa: B018 - asked for, not used
