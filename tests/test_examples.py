"""Every example of the card and of `docs/how-to/javascript.md`, run in the real client, gives the oracle's vector.

Examples fetch the model from the Hub and the library from a registry or a CDN. Here both come from loopback or from the
installed clients; nothing else of an example is changed.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_client
from deno_server import answered, served
from exporting import export_transformersjs

from bge_export import commands
from bge_export.javascript.browser import ChromiumLink
from bge_export.javascript.clients import CLIENTS, Client
from bge_export.javascript.packages import find_node, packages_folder
from bge_export.javascript.server import Loopback

ROOT = Path(__file__).parent.parent
TEXT = "That is a happy person"
EXAMPLE = re.compile(r"<!-- example: (?P<name>[\w.]+) -->\n```\w+\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE)
CDN = "https://cdn.jsdelivr.net/npm/"
SECONDS = 120
REPORTING = """<script type="module">
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (document.body.textContent.startsWith('[')) break;
  }
  await fetch('ANSWER', { method: 'POST', body: JSON.stringify({ id: 1, row: document.body.textContent }) });
</script>"""


@dataclass(frozen=True)
class Source:
    """A text with examples, the folder that they name, and how near their vectors must come to the oracle's."""

    text: str
    folder: Path
    repository: str
    cosine: float

    @property
    def examples(self) -> Mapping[str, str]:
        return {match["name"]: match["code"] for match in EXAMPLE.finditer(self.text)}


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("examples") / "out"
    return export_transformersjs(
        str(tiny), out, dtypes=["fp32", "fp16"], repository="somebody/tiny", check=False
    ).folder


@pytest.fixture(scope="module")
def with_int8(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with a dynamically quantized file under the name of `dtype: 'q8'`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("int8") / "out"))
    quantize_dynamic(
        copy / "onnx/model.onnx", copy / "onnx/model_quantized.onnx", per_channel=True, weight_type=QuantType.QInt8
    )
    return copy


@pytest.fixture(params=["card", "documentation"])
def source(request: pytest.FixtureRequest, folder: Path, with_int8: Path) -> Source:
    if request.param == "card":
        return Source((folder / "README.md").read_text("utf-8"), folder, "somebody/tiny", 0.9999)
    return Source((ROOT / "docs/how-to/javascript.md").read_text("utf-8"), with_int8, "Supabase/bge-small-en", 0.98)


@pytest.fixture(scope="module")
def oracle(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("oracle")
    (folder / "texts.txt").write_text(f"{TEXT}\n", "utf-8")
    return commands.write_reference(str(tiny), folder / "r.npz", texts=folder / "texts.txt").vectors["cls"][0]


@pytest.fixture
def hub(source: Source) -> Iterator[Loopback]:
    """The Hub, with one repository, and the packages of the clients."""
    needs_client("node@4")
    packages = packages_folder()
    server = Loopback(
        {f"{source.repository}/resolve/main": source.folder,
         **{f"lib/{name}": packages / client.package for name, client in CLIENTS.items()}}
    )  # fmt: skip
    yield server
    server.close()


def holds(row: object, source: Source, oracle: np.ndarray) -> None:
    vector = np.array(row, dtype=np.float64)
    assert vector.shape == oracle.shape
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert float(vector @ oracle) >= source.cosine


def write(folder: Path, example: str, library: str, hub: Loopback, before: str = "") -> Path:
    """Write an example beside a script that points the library at the Hub of this test; return what to run."""
    (folder / "before.mjs").write_text(before, "utf-8")
    (folder / "settings.mjs").write_text(
        f"import {{ env }} from '{library}';\n"
        f"Object.assign(env, {{ remoteHost: '{hub.address}', cacheDir: '{folder}/cache' }});\n"
        "env.allowLocalModels = false;\n",
        "utf-8",
    )
    (folder / "example.mjs").write_text(example, "utf-8")
    main = folder / "main.mjs"
    main.write_text("import './before.mjs';\nimport './settings.mjs';\nimport './example.mjs';\n", "utf-8")
    return main


@pytest.mark.parametrize(("name", "version"), [("node", "4"), ("v2.5", "2.5")])
def test_in_node(name: str, version: str, source: Source, hub: Loopback, oracle, tmp_path: Path) -> None:
    client = CLIENTS[version]
    library = tmp_path / "node_modules" / client.npm
    library.parent.mkdir(parents=True)
    library.symlink_to(packages_folder() / client.package)
    main = write(tmp_path, source.examples[name], client.npm, hub)
    done = subprocess.run([find_node(), main], capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    holds(json.loads(done.stdout.splitlines()[-1]), source, oracle)


def test_an_example_with_mean_pooling_does_not_give_the_oracles_vector(folder, oracle, tmp_path: Path) -> None:
    """So that the tests here can fail."""
    needs_client("node@4")
    source = Source((folder / "README.md").read_text("utf-8"), folder, "somebody/tiny", 0.9999)
    hub = Loopback({f"{source.repository}/resolve/main": folder})
    client = CLIENTS["4"]
    library = tmp_path / "node_modules" / client.npm
    library.parent.mkdir(parents=True)
    library.symlink_to(packages_folder() / client.package)
    main = write(tmp_path, source.examples["node"].replace("'cls'", "'mean'"), client.npm, hub)
    done = subprocess.run([find_node(), main], capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path)
    hub.close()
    assert done.returncode == 0, done.stderr
    with pytest.raises(AssertionError):
        holds(json.loads(done.stdout.splitlines()[-1]), source, oracle)


def test_a_deno_server_answers_the_cards_request(source: Source, hub: Loopback, oracle, tmp_path: Path) -> None:
    needs_client("deno@4")
    client = CLIENTS["4"]
    library = f"npm:{client.npm}@{client.version}"
    build = (packages_folder() / client.package / client.node).as_uri()
    main = write(tmp_path, source.examples["deno"], library, hub)
    with served(main, {library: build}, tmp_path) as address:
        holds(answered(address, TEXT), source, oracle)


def test_an_edge_function_answers_the_cards_request(source: Source, hub: Loopback, oracle, tmp_path: Path) -> None:
    """Supabase's runtime is emulated: the web build in Deno, on a native ONNX Runtime under the symbol that it uses."""
    needs_client("edge@3")
    client = CLIENTS["3"]
    library = f"{CDN}{client.npm}@{client.version}"
    package = packages_folder() / client.package
    host = (
        "import { createRequire } from 'node:module';\n"
        f"globalThis[Symbol.for('onnxruntime')] = createRequire('{package / client.node}')('onnxruntime-node');\n"
    )
    main = write(tmp_path, source.examples["supabase"], library, hub, before=host)
    with served(main, {library: (package / Client.WEB).as_uri()}, tmp_path) as address:
        holds(answered(address, TEXT), source, oracle)


def test_in_a_page(source: Source, hub: Loopback, oracle, tmp_path: Path) -> None:
    needs_client("chromium@4")
    client = CLIENTS["4"]
    library, wasm = f"{hub.address}lib/4/{Client.WEB}", f"{hub.address}lib/4/{'/'.join(map(str, client.wasm))}"
    settings = (
        f"<script type='module'>import {{ env }} from '{library}';\nenv.remoteHost = '{hub.address}';\n"
        f"env.backends.onnx.wasm.wasmPaths = {{ mjs: '{wasm}.mjs', wasm: '{wasm}.wasm' }};</script>\n"
    )
    example = source.examples["browser"]
    assert f"{CDN}{client.npm}@{client.version}'" in example
    example = example.replace(f"{CDN}{client.npm}@{client.version}", library)
    page = settings + example + REPORTING.replace("ANSWER", f"{hub.address}answer")
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset='utf-8'><body>{page}</body>", "utf-8")
    hub.folders["page"] = tmp_path
    link = ChromiumLink(hub, "page/page.html", webgpu=False)
    try:
        holds(json.loads(hub.channel("own").answers.get(timeout=SECONDS)["row"]), source, oracle)
    finally:
        link.close()


def test_in_python(folder: Path, oracle, tmp_path: Path) -> None:
    source = Source((folder / "README.md").read_text("utf-8"), folder, "somebody/tiny", 0.999999)
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody/tiny").symlink_to(folder)
    done = subprocess.run(
        [sys.executable, "-c", source.examples["python"]], capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    holds(json.loads(done.stdout.splitlines()[-1]), source, oracle)


def test_every_example_is_run_by_a_test(source: Source) -> None:
    """Those of a card in Python, but for the first, are run by `tests/publish/test_card_examples.py`."""
    run = {"node", "v2.5", "deno", "supabase", "browser"}
    assert set(source.examples) - {"python", "onnxruntime"} == run
    assert source.text.count("```js\n") + source.text.count("```ts\n") + source.text.count("```html\n") == len(run)
