"""Transformers.js in every environment and version: the oracle's vectors, every silent wrong turn refused by name."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import needs_client

from bge_export import commands
from bge_export.bundle.manifest import read_bundle
from bge_export.commands import read_policy
from bge_export.contracts import Artifact, Target
from bge_export.errors import ArtifactError, ClientError, DeviceUnavailable
from bge_export.heads.dense import dense_head
from bge_export.javascript import opening, packages
from bge_export.javascript.clients import CLIENTS
from bge_export.oracle.vectors import ReferenceVectors
from bge_export.parity.gate.judge import judge
from bge_export.parity.gate.limits import Limits
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.measure.measurement import FileFacts, Measurement, RuntimeDevice
from bge_export.parity.measure.operators import known_operators
from bge_export.parity.report import ParityReport
from bge_export.runtimes.transformersjs import DEVICES, RUNTIME
from bge_export.texts.corpus import Corpus, builtin_corpus
from bge_export.texts.tokens import TextTokenizer

NATIVE = ["node@2.5", "node@2.17", "node@3", "node@4", "deno@3", "deno@4"]
WEB = [
    "deno@2.5", "deno@2.17", "web@2.5", "web@2.17", "web@3", "web@4", "chromium@2.5", "chromium@2.17", "chromium@3",
    "chromium@4", "edge@3",
]  # fmt: skip
"""Measured on fewer texts: WebAssembly is slow, and a second environment of a version differs in little."""

FEW = 10


@pytest.fixture(scope="module")
def vectors(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> ReferenceVectors:
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    commands.write_reference(str(tiny), path)
    return ReferenceVectors.read(path)


@pytest.fixture(scope="module")
def artifacts(tiny_export: commands.Exported) -> tuple[Artifact, ...]:
    return read_bundle(tiny_export.folder)[1]


def opened(artifact: Artifact, device: str = "node@4"):
    needs_client(device)
    return RUNTIME.open(artifact, device, 1)


def measured(artifacts, device: str, vectors: ReferenceVectors, every: int = 1) -> tuple[ParityReport, Corpus]:
    needs_client(device)
    full = builtin_corpus()
    picked = range(0, len(full.texts), every)
    corpus = Corpus("some.jsonl", tuple(full.texts[n] for n in picked))
    some = ReferenceVectors(
        source=vectors.source, revision=None, checkpoint_digest=vectors.checkpoint_digest, texts_digest=corpus.digest,
        spec=vectors.spec, ids=tuple(vectors.ids[n] for n in picked),
        token_ids=tuple(vectors.token_ids[n] for n in picked),
        vectors={name: rows[list(picked)] for name, rows in vectors.vectors.items()}, versions=vectors.versions,
        kind=vectors.kind, sweep=vectors.sweep,
    )  # fmt: skip
    devices = [RuntimeDevice(RUNTIME, device, True)]
    facts = {digest: FileFacts(operators=names) for digest, names in known_operators(artifacts).items()}
    return Measurement(corpus, some, 1).report(artifacts, devices, facts=facts), corpus


@pytest.mark.parametrize("device", [*NATIVE, *WEB])
def test_every_environment_gives_the_oracles_vectors(artifacts, vectors, device: str) -> None:
    report, corpus = measured(artifacts, device, vectors, 1 if device in NATIVE else len(builtin_corpus().texts) // FEW)
    verdict = judge(report, read_policy(None), corpus)
    assert {bad.message for bad in verdict.failures if bad.rule != "not-measured"} == set()
    readable = {str(item.target) for item in artifacts if RUNTIME.reads(item, device)}
    assert {lane.target for lane in report.lanes} == readable
    assert "onnx-fp32" in readable
    for lane in report.lanes:
        assert lane.facts["transformers.js"] == CLIENTS[device.partition("@")[2]].version
        assert all(row.client is not None for row in lane.rows)


def test_the_one_file_without_a_name_is_fp16_in_the_oldest_version(artifacts) -> None:
    nameless = {
        (str(item.target), device) for item in artifacts for device in DEVICES if not RUNTIME.reads(item, device)
    }
    assert nameless == {("onnx-fp16", f"{environment}@2.5") for environment in ("node", "deno", "web", "chromium")}


def test_an_unknown_dtype_that_version_4_takes_for_fp32_is_refused(artifacts, monkeypatch) -> None:
    fp16 = next(item for item in artifacts if item.target.precision == "fp16")
    monkeypatch.setattr(type(CLIENTS["4"]), "options", lambda self, model: {"dtype": "float16"})
    with pytest.raises(ArtifactError, match=r"another file than onnx/model_fp16\.onnx"):
        opened(fp16)


def test_an_unknown_dtype_in_the_web_build_is_refused(artifacts, monkeypatch, bundle: Path) -> None:
    shutil.copyfile(bundle / "onnx/model.onnx", bundle / "onnx/model_quantized.onnx")  # what wasm falls back to
    needs_client("web@4")
    fp16 = next(item for item in artifacts if item.target.precision == "fp16")
    stray = Artifact(**{**fp16.__dict__, "root": bundle})
    monkeypatch.setattr(type(CLIENTS["4"]), "options", lambda self, model: {"dtype": "float16"})
    with pytest.raises(ArtifactError, match=r"fetched onnx/model_quantized\.onnx, not onnx/model_fp16\.onnx"):
        RUNTIME.open(stray, "web@4", 1)


@pytest.mark.parametrize("device", ["node@2.17", "node@3", "node@4", "deno@4"])
def test_a_stale_file_in_the_cache_that_shadows_the_folder_is_refused(
    artifacts, device: str, monkeypatch, tmp_path: Path
) -> None:
    """The lane's own cache is empty; here it is made to look where an earlier export left another model."""
    needs_client(device)
    fp32 = next(item for item in artifacts if item.target.precision == "fp32")
    stale = onnx.load(fp32.root / fp32.model)
    stale.doc_string = "an earlier export"
    cached = tmp_path / "cache/model/onnx/model.onnx"
    cached.parent.mkdir(parents=True)
    onnx.save(stale, cached)
    ask = opening.ProcessLink.ask

    def asking(self, op, *rest, **fields):
        if "settings" in fields:
            fields["settings"]["env"]["cacheDir"] = str(tmp_path / "cache")
        return ask(self, op, *rest, **fields)

    monkeypatch.setattr(opening.ProcessLink, "ask", asking)
    with pytest.raises(ArtifactError, match="an earlier export in its cache"):
        RUNTIME.open(fp32, device, 1)


def half_outputs(bundle: Path) -> Artifact:
    """Return the fp32 artifact with a float16 output, which `keep_io_types=False` would give."""
    path = bundle / "onnx/model.onnx"
    model = onnx.load(path)
    for output in model.graph.output:
        name = output.name
        node = next(node for node in model.graph.node if name in node.output)
        node.output[list(node.output).index(name)] = f"{name}_float32"
        for other in model.graph.node:
            for position, given in enumerate(other.input):
                if given == name:
                    other.input[position] = f"{name}_float32"
        model.graph.node.append(onnx.helper.make_node("Cast", [f"{name}_float32"], [name], to=onnx.TensorProto.FLOAT16))
        output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, path)
    return next(item for item in read_bundle(bundle, verify=False)[1] if item.target.precision == "fp32")


@pytest.mark.parametrize("device", ["node@3", "node@4"])
def test_float16_outputs_are_refused(bundle: Path, device: str) -> None:
    session = opened(half_outputs(bundle), device)
    ids = np.array([[101, 102]])
    batch = TextTokenizer.load(bundle, 512).pad(ids.tolist())
    with pytest.raises(ArtifactError, match="float16, which clients pool as if it were float32"):
        session.run(batch)
    session.close()


def test_a_file_that_the_client_cannot_load_is_a_refusal_with_its_words(bundle: Path) -> None:
    model = onnx.load(bundle / "onnx/model.onnx")
    model.ir_version = 10
    onnx.save(model, bundle / "onnx/model.onnx")
    fp32 = next(item for item in read_bundle(bundle, verify=False)[1] if item.target.precision == "fp32")
    with pytest.raises(ClientError, match="Unsupported model IR version: 10"):
        opened(fp32, "node@2.17")


def test_a_client_that_dies_while_measuring_is_a_refusal(artifacts) -> None:
    fp32 = next(item for item in artifacts if item.target.precision == "fp32")
    session = opened(fp32)
    os.kill(session._link.pid, signal.SIGKILL)
    with pytest.raises(ClientError, match="ended by itself with status -9"):
        session.tokenize(["a"])
    session.close()


def test_a_device_that_is_not_there_says_what_installs_it(artifacts, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "clients_folder", lambda: tmp_path / "none")
    assert set(RUNTIME.devices()) == set(DEVICES)
    with pytest.raises(DeviceUnavailable, match="bge-export setup-js"):
        RUNTIME.open(artifacts[0], "node@4", 1)
    with pytest.raises(DeviceUnavailable, match=r"knows no 'node@5'; it has node@2\.5"):
        RUNTIME.open(artifacts[0], "node@5", 1)


def test_setup_says_that_npm_is_missing(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "clients_folder", lambda: tmp_path / "none")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(DeviceUnavailable, match="npm is not on the PATH"):
        packages.install_clients()


@pytest.fixture(scope="module")
def quantized(tiny_export: commands.Exported, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A dynamically quantized file under the name of `dtype: 'q8'`, as the Hub has them."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = Path(shutil.copytree(tiny_export.folder, tmp_path_factory.mktemp("int8") / "out"))
    name = "onnx/model_quantized.onnx"
    quantize_dynamic(root / "onnx/model.onnx", root / name, per_channel=True, weight_type=QuantType.QInt8)
    fp32 = next(item for item in read_bundle(root, verify=False)[1] if item.target.precision == "fp32")
    return replace(fp32, target=Target("onnx", "int8"), model=name)


def loosely(limits: Limits) -> ThresholdPolicy:
    policy = read_policy(None)
    return ThresholdPolicy((), {**policy.tables, "onnx-int8": limits}, policy.token_differences)


INT8 = Limits(
    min_cosine=0.95,
    max_abs=0.3,
    max_norm_error=1e-5,
    min_batch_cosine=0.9,
    min_token_cosine=0.5,
    min_sequence_cosine=0.8,
)
"""Loose: the file here is a crude one, whose vectors depend on their neighbours."""


@pytest.mark.parametrize("device", ["node@2.5", "node@2.17", "node@3", "deno@4", "web@2.5", "edge@3"])
def test_the_quantized_file_is_found_under_its_name(quantized, vectors, device: str) -> None:
    report, corpus = measured([quantized], device, vectors, 12)
    verdict = judge(report, loosely(INT8), corpus)
    assert [bad.message for bad in verdict.failures] == []
    assert {lane.facts["loaded"] for lane in report.lanes} == {"onnx/model_quantized.onnx"}


def test_version_3_on_webgpu_gives_garbage_for_integers_which_no_limit_lets_pass(quantized, vectors) -> None:
    """One text: a software adapter takes seconds for each new shape."""
    session = opened(quantized, "webgpu@3")
    text = next(n for n, ids in enumerate(vectors.token_ids) if len(ids) == 8)
    batch = TextTokenizer.load(quantized.root, 512).pad([vectors.token_ids[text]])
    (row,) = dense_head(quantized.spec).rows(session.run(batch), batch.attention_mask)["last_hidden_state"]
    session.close()
    assert float(row @ vectors.vectors["cls"][text]) < INT8.min_cosine
