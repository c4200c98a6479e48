import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import export_model

from bge_export.bundle.manifest import read_bundle
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError, DeviceUnavailable, MissingLibrary
from bge_export.exporters.torchscript import TorchScriptExporter
from bge_export.heads.dense import dense_head
from bge_export.runtimes import find_runtime
from bge_export.texts.tokens import TextTokenizer

TEXTS = ("hello world", "The last ferry to the island leaves at half past nine.")
runtime = find_runtime("torchscript")


@pytest.fixture(scope="module", params=["plain", "eland"])
def artifact(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    exporter = TorchScriptExporter(sentence_embedding=True, layout=request.param)
    folder = export_model(exporter, str(tiny), tmp_path_factory.mktemp("out") / "tiny", check=False).folder
    return read_bundle(folder)[1][0]


def embed(artifact: Artifact, device: str = "cpu", threads: int = 1):
    tokenizer = TextTokenizer.load(artifact.root, artifact.spec.inputs.max_tokens)
    session = runtime.open(artifact, device, threads)
    try:
        batch = tokenizer.pad(tokenizer.encode(TEXTS))
        return dense_head(artifact.spec).rows(session.run(batch), batch.attention_mask), dict(session.facts)
    finally:
        session.close()


def test_every_output_of_both_layouts_is_one_embedding_a_text(artifact: Artifact) -> None:
    given, _ = embed(artifact)
    assert tuple(given) == artifact.outputs
    for rows in given.values():
        assert rows.shape == (len(TEXTS), dense_head(artifact.spec).dim)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, given["sentence_embedding"], atol=1e-6)


def test_the_facts_say_what_ran(artifact: Artifact) -> None:
    before = torch.get_num_threads()
    torch.backends.cuda.matmul.allow_tf32 = True
    _, facts = embed(artifact, threads=2)
    torch.set_num_threads(before)
    assert facts == {"torch": torch.__version__, "device": "cpu", "tf32": "off", "threads": "2"}
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_a_gpu_is_used_when_asked_for_or_refused_with_the_reason(artifact: Artifact) -> None:
    reason = runtime.devices()["cuda"]
    assert (reason is None) == torch.cuda.is_available()
    if reason is None:
        given, facts = embed(artifact, "cuda")
        assert facts["device"] == torch.cuda.get_device_name()
        assert facts["tf32"] == "off"
        np.testing.assert_allclose(given["sentence_embedding"], embed(artifact)[0]["sentence_embedding"], atol=1e-4)
    else:
        with pytest.raises(DeviceUnavailable, match=r"torch cannot run on 'cuda': .*CUDA") as caught:
            embed(artifact, "cuda")
        assert reason in str(caught.value)


def test_a_device_that_torch_does_not_know_is_refused(artifact: Artifact) -> None:
    assert tuple(runtime.devices()) == ("cpu", "cuda", "mps")
    with pytest.raises(DeviceUnavailable, match=r"'npu': .* knows cpu, cuda, mps"):
        embed(artifact, "npu")


def test_a_damaged_or_missing_file_is_named(artifact: Artifact, tmp_path: Path) -> None:
    damaged = replace(artifact, root=tmp_path)
    path = tmp_path / artifact.model
    path.parent.mkdir()
    with pytest.raises(ArtifactError, match=r"\.pt is missing\. Export the folder again"):
        runtime.open(damaged, "cpu", 1)
    path.write_bytes((artifact.root / artifact.model).read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match=rf"{artifact.model} is not a TorchScript file .+\. Export it again"):
        runtime.open(damaged, "cpu", 1)


def test_without_torch_every_device_says_how_to_install_it(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert all("pip install 'bge-export[export]'" in str(reason) for reason in runtime.devices().values())
    with pytest.raises(MissingLibrary, match="torch"):
        runtime.open(artifact, "cpu", 1)
