"""A provider that is asked for runs the nodes, or is refused by name."""

import json
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from bge_export.commands import Exported
from bge_export.errors import ArtifactError, DeviceUnavailable
from bge_export.manifest import read_bundle
from bge_export.runtimes.onnxruntime import CPU, PROVIDERS, RUNTIME

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def artifact(tiny_export: Exported):
    return read_bundle(tiny_export.place)[1][0]


class FakeSession:
    """A session whose provider runs a share of the nodes and leaves the rest to the CPU."""

    first = CUDA
    own_nodes, cpu_nodes = 9, 1

    def __init__(self, path, sess_options, providers) -> None:
        self.profile, self.asked = sess_options.profile_file_prefix, providers

    def get_providers(self):
        return [self.first, CPU]

    def get_inputs(self):
        return [SimpleNamespace(name=name) for name in ("input_ids", "attention_mask")]

    def get_outputs(self):
        return [SimpleNamespace(name="last_hidden_state")]

    def run(self, outputs, feed):
        return []

    def end_profiling(self) -> str:
        ran = [CUDA] * self.own_nodes + [CPU] * self.cpu_nodes
        events = [{"name": "MatMul_kernel_time", "args": {"provider": one}} for one in ran]
        Path(self.profile).write_text(json.dumps([*events, {"name": "session_initialization"}]))
        return self.profile


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch):
    """A build that has CUDA; returns what to set of its sessions."""

    def use(**changes: object) -> None:
        session = type("Session", (FakeSession,), changes)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    return use


def test_the_share_of_nodes_is_recorded_and_tf32_is_off(cuda, artifact) -> None:
    cuda()
    facts = RUNTIME.open(artifact, "cuda", 1).facts
    assert facts["provider"] == CUDA
    assert facts["share_of_nodes"] == "0.9000"
    assert facts["use_tf32"] == "0"


def test_a_provider_that_another_took_the_place_of_is_refused(cuda, artifact) -> None:
    cuda(first=CPU)
    with pytest.raises(DeviceUnavailable, match=f"{CUDA} was asked for, and {CPU} took its place"):
        RUNTIME.open(artifact, "cuda", 1)


@pytest.mark.parametrize(("own", "cpu"), [(0, 10), (2, 8), (0, 0)])
def test_a_provider_that_leaves_the_nodes_to_the_cpu_is_refused(cuda, artifact, own: int, cpu: int) -> None:
    cuda(own_nodes=own, cpu_nodes=cpu)
    with pytest.raises(DeviceUnavailable, match="fell back to the CPU"):
        RUNTIME.open(artifact, "cuda", 1)


def test_a_device_that_the_build_lacks_says_which_build_has_it(artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    for device in set(PROVIDERS) - {"cpu"}:
        with pytest.raises(DeviceUnavailable, match=PROVIDERS[device][1].partition(" ")[0]):
            RUNTIME.open(artifact, device, 1)
    with pytest.raises(DeviceUnavailable, match="no such device"):
        RUNTIME.open(artifact, "abacus", 1)


def test_a_broken_file_is_named(bundle: Path) -> None:
    artifact = read_bundle(bundle)[1][0]
    (bundle / artifact.model).write_bytes(b"broken")
    with pytest.raises(ArtifactError, match=r"cannot load onnx/model\.onnx"):
        RUNTIME.open(artifact, "cpu", 1)
