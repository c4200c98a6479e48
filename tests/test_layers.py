"""Imports follow the arrow, and light commands load nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import bge_export

PACKAGE = Path(bge_export.__file__).parent
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "openvino", "optimum", "scipy", "onnx_ir"}

FORBIDDEN = {
    "contracts": ("bge_export.",),
    "errors": ("bge_export.",),
    "regular_files": ("bge_export.",),
    "panics": ("bge_export.",),
    "npz": ("bge_export.",),
    "memory": ("bge_export.",),
    "declared_sizes": ("bge_export.checkpoint", "bge_export.model"),
    "onnx_files": ("bge_export.pair_rule", "bge_export.inspection", "bge_export.runtimes", "bge_export.commands"),
    "openvino_files": ("bge_export.pair_rule", "bge_export.bench", "bge_export.runtimes", "bge_export.commands"),
    "hub_transfer": ("bge_export.hub", "bge_export.checkpoint"),
    "hub_guard": ("bge_export.hub.", "bge_export.hub_cache", "bge_export.checkpoint"),
    "hub_cache": ("bge_export.hub", "bge_export.checkpoint"),
    "exporters": ("bge_export.runtimes", "bge_export.parity", "bge_export.reference", "bge_export.commands"),
    "precision": ("bge_export.runtimes", "bge_export.parity", "bge_export.exporters", "bge_export.reference"),
    "int8": (
        "bge_export.exporters",
        "bge_export.runtimes",
        "bge_export.parity",
        "bge_export.reference",
        "bge_export.commands",
    ),
    "graph": ("bge_export.",),
    "runtimes": ("bge_export.exporters", "bge_export.parity", "bge_export.reference", "bge_export.commands"),
    "reference": (
        "bge_export.parity",
        "bge_export.pooling",
        "bge_export.tokens",
        "bge_export.runtimes",
        "bge_export.exporters",
    ),
    "pair_rule": (
        "bge_export.exporters",
        "bge_export.runtimes",
        "bge_export.parity",
        "bge_export.commands",
        "bge_export.int8",
    ),
    "states": ("bge_export.exporters", "bge_export.runtimes", "bge_export.parity", "bge_export.commands"),
    "checkpoint": ("bge_export.model", "bge_export.parity", "bge_export.exporters", "bge_export.runtimes"),
    "model": ("bge_export.pooling", "bge_export.tokens", "bge_export.runtimes", "bge_export.exporters"),
    "bench": ("bge_export.exporters", "bge_export.reference", "bge_export.commands", "bge_export.cli"),
    "parity": ("bge_export.exporters", "bge_export.reference", "bge_export.commands", "bge_export.cli"),
    "parity/report": ("bge_export.parity.gate", "bge_export.parity.policy", "bge_export.parity.limits"),
    "parity/compare": ("bge_export.parity.gate", "bge_export.parity.policy", "bge_export.parity.limits"),
    "languages": ("bge_export.tokens", "bge_export.int8", "bge_export.parity", "bge_export.runtimes"),
    "commands": ("bge_export.cli",),
    "others": ("bge_export.exporters", "bge_export.runtimes", "bge_export.parity", "bge_export.commands"),
    "handover": ("bge_export.exporters", "bge_export.runtimes", "bge_export.parity", "bge_export.commands"),
    "javascript": ("bge_export.runtimes", "bge_export.exporters", "bge_export.parity", "bge_export.commands"),
}
"""Module or folder -> prefixes that it must not import."""


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


def test_imports_follow_the_arrow() -> None:
    for owner, prefixes in FORBIDDEN.items():
        single = PACKAGE / f"{owner}.py"
        files = [single] if single.is_file() else sorted((PACKAGE / owner).rglob("*.py"))
        assert files, owner
        for file in files:
            for name in imported(file):
                assert not name.startswith(prefixes), f"{file.relative_to(PACKAGE)} imports {name}"


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


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_after("from bge_export.cli import run\nrun(['--help'])\nrun(['onnx', '--help'])") & HEAVY


def test_a_process_that_measures_memory_loads_no_more_than_it_must() -> None:
    assert not loaded_after("import bge_export.bench.fresh") & (HEAVY | {"pydantic", "rich", "typer"})


def test_gating_needs_none_of_the_heavy_libraries(tiny_export, tmp_path: Path) -> None:
    code = f"from bge_export.cli import run\nassert run(['gate', {str(tiny_export.proof.place)!r}]) == 0"
    assert not loaded_after(code) & HEAVY


def test_every_public_name_is_there() -> None:
    for name in bge_export.__all__:
        assert getattr(bge_export, name) is not None
    assert set(bge_export.__all__) == set(bge_export._OWNER)
