"""`bge-export use` prints source that is right for the folder at hand: it runs, and gives the oracle's vectors."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import IN_CI, needs_client
from deno_server import answered, served
from exporting import export_model
from tiny_checkpoint import change_json

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.cli import run
from bge_export.commands import Exported
from bge_export.contracts import Exporter
from bge_export.errors import UsageError
from bge_export.exporters.onnx import OnnxExporter
from bge_export.exporters.openvino import OpenVinoExporter
from bge_export.exporters.torchscript import TorchScriptExporter
from bge_export.javascript.clients import CLIENTS
from bge_export.javascript.packages import find_node, packages_folder
from bge_export.oracle.eager import embed_texts
from bge_export.publish.snippets import PLACES, snippet
from bge_export.texts.corpus import Corpus, Text

PAGE = Path(__file__).parents[2] / "docs/how-to/use-elsewhere.md"
TEXT = "That is a happy person"
SECONDS = 120
PARSER = """
import com.sun.source.util.JavacTask;
import java.util.List;
import javax.tools.*;

public class Parse {
    public static void main(String[] names) throws Exception {
        var compiler = ToolProvider.getSystemJavaCompiler();
        var found = new DiagnosticCollector<JavaFileObject>();
        var files = compiler.getStandardFileManager(found, null, null).getJavaFileObjects(names);
        ((JavacTask) compiler.getTask(null, null, found, List.of(), null, files)).parse();
        found.getDiagnostics().forEach(System.err::println);
        System.exit(found.getDiagnostics().size());
    }
}
"""


@pytest.fixture(scope="module")
def oracle(tiny: Path) -> np.ndarray:
    corpus = Corpus("one.txt", (Text("one", TEXT, ""),))
    return embed_texts(open_checkpoint(tiny), corpus, threads=1).truth[0]


@pytest.fixture(scope="module", params=["tiny", "tiny's model"])
def folder(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one ONNX file, that nothing has proven; Transformers.js takes its second name for a path."""
    out = tmp_path_factory.mktemp("use") / request.param
    return export_model(OnnxExporter(), str(tiny), out, check=False).folder


def last_line(*command: object, cwd: Path) -> np.ndarray:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=SECONDS, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "exporter", [OnnxExporter(), OpenVinoExporter(), TorchScriptExporter()], ids=lambda one: str(one.format)
)
def test_in_python_with_each_format(exporter: Exporter, tiny: Path, tmp_path: Path, oracle: np.ndarray) -> None:
    done = export_model(exporter, str(tiny), tmp_path / "it's out", check=False)
    found = last_line(sys.executable, "-c", snippet(done.folder, "python"), cwd=tmp_path)
    np.testing.assert_allclose(found, oracle, atol=1e-5)


def test_a_precision_is_named_and_its_file_is_run(tiny_export: Exported, tmp_path: Path, oracle: np.ndarray) -> None:
    source = snippet(tiny_export.folder, "python", precision="fp16")
    assert "onnx/model_fp16.onnx" in source
    found = last_line(sys.executable, "-c", source, cwd=tmp_path)
    assert float(found @ oracle) > 0.9999
    assert '{"file_name": "onnx/model_fp16.onnx"}' in snippet(
        tiny_export.folder, "sentence-transformers", precision="fp16"
    )


def test_in_node_from_this_disk(folder: Path, tmp_path: Path, oracle: np.ndarray) -> None:
    needs_client("node@4")
    client = CLIENTS["4"]
    library = tmp_path / "node_modules" / client.npm
    library.parent.mkdir(parents=True)
    library.symlink_to(packages_folder() / client.package)

    (tmp_path / "main.mjs").write_text(snippet(folder, "js"), "utf-8")
    np.testing.assert_allclose(last_line(find_node(), "main.mjs", cwd=tmp_path), oracle, atol=1e-5)


def test_in_deno_from_this_disk(folder: Path, tmp_path: Path, oracle: np.ndarray) -> None:
    needs_client("deno@4")
    client = CLIENTS["4"]
    (tmp_path / "main.ts").write_text(snippet(folder, "deno"), "utf-8")

    build = (packages_folder() / client.package / client.node).as_uri()
    with served(tmp_path / "main.ts", {f"npm:{client.npm}@{client.version}": build}, tmp_path) as address:
        np.testing.assert_allclose(np.array(answered(address, TEXT)), oracle, atol=1e-5)


@pytest.fixture(params=["Represent this: ", 'it\'s "here" \\ 说：{x} ${y}\t'])
def prompted(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Path:
    """The folder with another prompt in its manifest, in which no source may break."""
    copy = Path(shutil.copytree(folder, tmp_path / 'a "quoted" model'))
    manifest = json.loads((copy / "bge_export.json").read_text("utf-8"))
    manifest["spec"]["inputs"]["prompts"] = {"query": request.param, "document": ""}
    (copy / "bge_export.json").write_text(json.dumps(manifest), "utf-8")
    return copy


@pytest.mark.parametrize("place", ["python", "sentence-transformers", "chroma", "qdrant", "pgvector"])
def test_python_is_python_whatever_path_and_prompt(place: str, prompted: Path) -> None:
    source = snippet(prompted, place)
    compile(source, place, "exec")
    assert ('prompt="query"' in source) == PLACES[place].prompts


@pytest.mark.parametrize("place", ["js", "deno", "supabase"])
def test_javascript_is_javascript_whatever_path_and_prompt(place: str, prompted: Path, tmp_path: Path) -> None:
    (tmp_path / "main.mjs").write_text(snippet(prompted, place), "utf-8")
    subprocess.run([tool("node"), "--check", tmp_path / "main.mjs"], check=True)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None and IN_CI:
        pytest.fail(f"{name} is not installed")
    if path is None:
        pytest.skip(f"left out: {name} is not installed")
    return path


def test_java_is_java_whatever_path_and_prompt(prompted: Path, tmp_path: Path) -> None:
    (tmp_path / "Parse.java").write_text(PARSER, "utf-8")
    (tmp_path / "Embed.java").write_text(snippet(prompted, "java"), "utf-8")
    command = [tool("java"), tmp_path / "Parse.java", tmp_path / "Embed.java"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0, done.stderr


def test_rust_is_rust_whatever_path_and_prompt(prompted: Path, tmp_path: Path) -> None:
    (tmp_path / "main.rs").write_text(snippet(prompted, "rust"), "utf-8")
    command = [tool("rustfmt"), "--edition", "2021", "--emit", "stdout", tmp_path / "main.rs"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_repository_is_fetched_and_this_disk_is_not_named(folder: Path) -> None:
    for place in PLACES:
        source = snippet(folder, place, repository="somebody/tiny")
        assert "somebody/tiny" in source
        assert folder.as_posix() not in source


def test_a_model_without_prompts_is_given_none(tiny: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(tiny, tmp_path / "silent"))
    change_json(checkpoint / "config_sentence_transformers.json", prompts=None)
    silent = export_model(OnnxExporter(), str(checkpoint), tmp_path / "out", check=False).folder
    for place in PLACES:
        source = snippet(silent, place)
        assert "prompt=" not in source
        assert "Represent" not in source
        assert "begins with" not in source


def test_what_cannot_be_used_there_is_refused_with_what_to_do(
    folder: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    openvino = export_model(OpenVinoExporter(), str(tiny), tmp_path / "openvino", check=False).folder
    with pytest.raises(UsageError, match=r"holds no file that Transformers\.js loads"):
        snippet(openvino, "js")
    with pytest.raises(UsageError, match=r"holds no ONNX file for java\. Write one: bge-export onnx MODEL"):
        snippet(openvino, "java")
    with pytest.raises(UsageError, match="holds no int8, only fp32"):
        snippet(folder, "python", precision="int8")
    with pytest.raises(UsageError, match="no snippet for 'go', only for python"):
        snippet(folder, "go")
    with pytest.raises(UsageError, match="is not a repository"):
        snippet(folder, "python", repository="../x")

    assert run(["use", str(folder)]) == 2
    assert "--for: python, sentence-transformers" in capfd.readouterr().err


def test_a_pooling_that_a_library_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "last"))
    text = (copy / "bge_export.json").read_text("utf-8").replace('"pooling": "cls"', '"pooling": "last"')
    (copy / "bge_export.json").write_text(text, "utf-8")
    assert "states[-1]" in snippet(copy, "python")
    for place in ("java", "rust"):
        with pytest.raises(UsageError, match=f"pools by 'last', and the library of {place} has only cls, mean"):
            snippet(copy, place)


def test_the_command_prints_the_snippet_and_nothing_else(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["use", str(folder), "--for", "qdrant", "--precision", "fp32"]) == 0
    assert capfd.readouterr().out == snippet(folder, "qdrant", precision="fp32")


def test_every_command_of_the_page_runs(tiny_export: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp16, because the embedded checkpoint's weights are noise, which int8 rounds to another noise."""
    (tmp_path / "out").symlink_to(tiny_export.folder)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    commands = [shlex.split(line.partition(">")[0]) for block in blocks for line in block.splitlines()]

    assert len(commands) == 4
    for program, *arguments in commands:
        assert program == "bge-export"
        assert run(["fp16" if word == "int8" else word for word in arguments]) == 0, arguments
