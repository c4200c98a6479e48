"""A provider that is asked for runs the nodes, or is refused by name."""

import json
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from bge_export.bundle.manifest import read_bundle
from bge_export.commands import Exported
from bge_export.errors import ArtifactError, DeviceUnavailable
from bge_export.runtimes.onnxruntime import CPU, PROVIDERS, RUNTIME

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def artifact(tiny_export: Exported):
    return read_bundle(tiny_export.folder)[1][0]


class FakeSession:
    """A session whose provider runs some nodes and leaves others to the CPU."""

    first = CUDA
    own, cpu = ("MatMul",) * 9, ("Shape",)

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
        ran = [(CUDA, name) for name in self.own] + [(CPU, name) for name in self.cpu]
        events = [{"name": f"{name}_kernel_time", "args": {"provider": who, "op_name": name}} for who, name in ran]
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


def test_the_cpu_needs_no_proof_and_runs_every_node(artifact) -> None:
    session = RUNTIME.open(artifact, "cpu", 1)
    assert session.facts["provider"] == CPU
    assert session.facts["share_of_nodes"] == "1.0000"
    session.close()


def test_the_nodes_of_each_provider_are_recorded_and_tf32_is_off(cuda, artifact) -> None:
    cuda()
    facts = RUNTIME.open(artifact, "cuda", 1).facts
    assert facts["provider"] == CUDA
    assert facts["share_of_nodes"] == "0.9000"
    assert (facts[f"nodes_{CUDA}"], facts[f"nodes_{CPU}"]) == ("9", "1")
    assert facts["use_tf32"] == "0"


def test_a_provider_that_another_took_the_place_of_is_refused(cuda, artifact) -> None:
    cuda(first=CPU)
    with pytest.raises(DeviceUnavailable, match=f"{CUDA} was requested, but {CPU} is used instead"):
        RUNTIME.open(artifact, "cuda", 1)


@pytest.mark.parametrize(
    ("own", "cpu", "said"),
    [
        ((), ("MatMul",) * 10, "runs 10 MatMul of"),
        (("MatMul",) * 99, ("FusedMatMul",), "runs 1 FusedMatMul of"),
        (("Gather",) * 9, ("SkipLayerNormalization", "Attention", "Shape"), "1 Attention, 1 SkipLayerNormalization of"),
        ((), ("Shape", "Gather"), "runs every node of"),
        ((), (), "runs every node of"),
    ],
)
def test_a_provider_that_leaves_work_to_the_cpu_is_refused(cuda, artifact, own, cpu, said: str) -> None:
    cuda(own=own, cpu=cpu)
    with pytest.raises(DeviceUnavailable, match=f"fell back to the CPU, which .*{said} {artifact.model}"):
        RUNTIME.open(artifact, "cuda", 1)


def test_a_provider_that_runs_the_graph_as_one_node_may_leave_shapes_to_the_cpu(cuda, artifact) -> None:
    cuda(own=("TensorRT_1",), cpu=("Shape", "Gather", "Log", "Cast"))
    assert RUNTIME.open(artifact, "cuda", 1).facts["share_of_nodes"] == "0.2000"


def test_the_profile_is_removed_and_the_session_that_was_proven_is_the_one_that_runs(cuda, artifact) -> None:
    made = []
    init = FakeSession.__init__
    cuda(__init__=lambda self, *args, **named: (made.append(self), init(self, *args, **named))[0])
    RUNTIME.open(artifact, "cuda", 1)
    (session,) = made
    assert not Path(session.profile).parent.exists()


def test_the_openvino_provider_is_pinned_to_device_precision_and_threads(
    artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = PROVIDERS["openvino"][0]
    asked = []

    class Session(FakeSession):
        first = provider

        def __init__(self, path, sess_options, providers) -> None:
            super().__init__(path, sess_options, providers)
            asked.extend(providers)

        def end_profiling(self) -> str:
            event = {"name": "OpenVINO_0_kernel_time", "args": {"provider": provider, "op_name": "OpenVINO_0"}}
            Path(self.profile).write_text(json.dumps([event]))
            return self.profile

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider, CPU])
    facts = RUNTIME.open(artifact, "openvino", 3).facts
    assert asked == [(provider, {"device_type": "CPU", "precision": "FP32", "num_of_threads": "3"})]
    assert facts["num_of_threads"] == "3"


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
