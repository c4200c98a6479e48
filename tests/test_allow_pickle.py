"""Weights that are only there as pickles: refused, or with --allow-pickle read by a process that does nothing else."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import EMBEDDING, TOKENS, WIDTH, write_checkpoint, write_json

from bge_export.bundle.layout import write_layout
from bge_export.bundle.manifest import read_manifest, write_manifest
from bge_export.checkpoint import _unpickle
from bge_export.checkpoint.opening import open_checkpoint
from bge_export.checkpoint.unpickling import pickles_of
from bge_export.commands.measuring import open_reference
from bge_export.errors import CheckpointError, UsageError


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A checkpoint whose weights are only there as a pickle."""
    root = write_checkpoint(tmp_path / "pickled")
    torch.save(load_file(root / "model.safetensors"), root / "pytorch_model.bin")
    (root / "model.safetensors").unlink()
    return root


class Harmful:
    """Something whose pickle runs a command when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {self.path}",)


def test_without_the_flag_the_refusal_names_it(pickled: Path) -> None:
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickle.*--allow-pickle"):
        open_checkpoint(pickled)


def test_with_the_flag_the_same_tensors_are_read_and_the_folder_stays_as_it_was(pickled: Path) -> None:
    before = sorted(path.name for path in pickled.iterdir())
    checkpoint = open_checkpoint(pickled, allow_pickle=True)

    assert (checkpoint.pickles, checkpoint.weights) == (("pytorch_model.bin",), ("model.safetensors",))
    assert checkpoint.source == "pickled"
    assert any("pytorch_model.bin" in note for note in checkpoint.notes)
    tensors = load_file(checkpoint.root / "model.safetensors")
    assert tensors[EMBEDDING].shape == (len(TOKENS), WIDTH)
    assert sorted(path.name for path in pickled.iterdir()) == before


def test_the_digest_is_that_of_the_same_weights_as_safetensors(pickled: Path, tmp_path: Path) -> None:
    plain = write_checkpoint(tmp_path / "plain")
    tensors = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})

    assert open_checkpoint(pickled, allow_pickle=True).digest == open_checkpoint(plain).digest


def test_the_manifest_names_the_pickle_and_says_nothing_of_other_checkpoints(pickled: Path, tmp_path: Path) -> None:
    for name, root in (("pickled", pickled), ("plain", write_checkpoint(tmp_path / "plain"))):
        checkpoint = open_checkpoint(root, allow_pickle=True)
        out = tmp_path / f"out-{name}"
        write_layout(checkpoint, out)
        write_manifest(out, checkpoint, [], checked=False)

    assert read_manifest(tmp_path / "out-pickled").source.pickles == ["pytorch_model.bin"]
    assert "pickles" not in json.loads((tmp_path / "out-plain" / "bge_export.json").read_text("utf-8"))["source"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pickles": []}, r"pickles .*: none, .* has: pytorch_model\.bin"),
        ({"pickles": ["pytorch_model.bin", "more.bin"]}, r"pickles .*more\.bin.* has: pytorch_model\.bin"),
        ({"adapter": "LoRA of rank 4"}, "adapter .*LoRA of rank 4.* has: none"),
    ],
)
def test_a_manifest_that_names_another_origin_of_the_weights_is_refused(
    pickled: Path, tmp_path: Path, change: dict, said: str
) -> None:
    checkpoint = open_checkpoint(pickled, allow_pickle=True)
    write_layout(checkpoint, tmp_path / "out")
    write_manifest(tmp_path / "out", checkpoint, [], checked=False)
    manifest = read_manifest(tmp_path / "out")
    assert open_reference(str(pickled), None, manifest, allow_pickle=True).digest == checkpoint.digest

    edited = manifest.model_copy(update={"source": manifest.source.model_copy(update=change)})
    with pytest.raises(UsageError, match=said):
        open_reference(str(pickled), None, edited, allow_pickle=True)


def test_shards_are_read_and_their_index_follows_them(pickled: Path) -> None:
    tensors = torch.load(pickled / "pytorch_model.bin", weights_only=True)
    (pickled / "pytorch_model.bin").unlink()
    located = {name: f"pytorch_model-0000{n}-of-00002.bin" for n, name in enumerate(tensors, 1)}
    for name, shard in located.items():
        torch.save({name: tensors[name]}, pickled / shard)
    write_json(pickled / "pytorch_model.bin.index.json", {"weight_map": located})

    checkpoint = open_checkpoint(pickled, allow_pickle=True)
    assert checkpoint.weights == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_safetensors_beside_a_pickle_are_what_is_read(tmp_path: Path) -> None:
    root = write_checkpoint(tmp_path / "both")
    (root / "pytorch_model.bin").write_bytes(b"not even a pickle")

    checkpoint = open_checkpoint(root, allow_pickle=True)
    assert (checkpoint.root, checkpoint.pickles) == (root, ())


@pytest.mark.parametrize(("protocol", "named"), [(2, "GLOBAL posix.system"), (4, "Unsupported operand")])
def test_a_harmful_pickle_is_refused_and_its_command_never_runs(
    pickled: Path, tmp_path: Path, protocol: int, named: str
) -> None:
    trace = tmp_path / "it-ran"
    torch.save({EMBEDDING: Harmful(trace)}, pickled / "pytorch_model.bin", pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=f"not loaded.*{named}"):
        open_checkpoint(pickled, allow_pickle=True)
    assert not trace.exists()


def test_a_bare_pickle_that_is_harmful_is_refused_too(pickled: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful(trace)))
    with pytest.raises(CheckpointError, match="not loaded"):
        open_checkpoint(pickled, allow_pickle=True)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([torch.zeros(2)], "list in place of tensors"),
        ({"step": 3}, "'step' is not a dense tensor"),
        ({EMBEDDING: torch.eye(2).to_sparse()}, "not a dense tensor"),
        ({}, "dict in place of tensors"),
    ],
)
def test_anything_but_a_table_of_tensors_is_refused(pickled: Path, content: object, named: str) -> None:
    torch.save(content, pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=named):
        open_checkpoint(pickled, allow_pickle=True)


def test_a_damaged_pickle_is_refused_and_leaves_nothing(pickled: Path) -> None:
    (pickled / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match="not loaded"):
        open_checkpoint(pickled, allow_pickle=True)


def confined(tmp_path: Path, code: str) -> str:
    """Return what code says for itself in a process that is confined as the one that reads pickles."""
    path = Path(_unpickle.__file__)
    program = (
        f"import sys; sys.path.insert(0, {str(path.parent)!r}); import os, socket, subprocess, _unpickle\n"
        f"target = {str(tmp_path / 'written')!r}\n_unpickle.confine(1000)\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    return f"{done.returncode} {done.stderr}"


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.getaddrinfo('localhost', 9)",
        "subprocess.run(['true'])",
        "os.system('true')",
        "open(target, 'w')",
        "os.open(target, os.O_WRONLY | os.O_CREAT)",
    ],
)
def test_the_process_that_reads_pickles_has_no_network_no_children_and_writes_nothing(
    tmp_path: Path, code: str
) -> None:
    said = confined(tmp_path, code)
    assert said.startswith("1 ")
    assert "PermissionError" in said
    assert not (tmp_path / "written").exists()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux limits a process's memory")
def test_the_process_that_reads_pickles_has_no_more_memory_than_weights_need(tmp_path: Path) -> None:
    assert "MemoryError" in confined(tmp_path, "bytearray(3 << 30)")


def test_heads_and_modules_are_found_beside_the_weights(pickled: Path) -> None:
    for name in ("sparse_linear.pt", "colbert_linear.pt"):
        torch.save({"weight": torch.zeros(1, WIDTH)}, pickled / name)
    (pickled / "2_Dense").mkdir()
    torch.save({"linear.weight": torch.zeros(2, WIDTH)}, pickled / "2_Dense" / "pytorch_model.bin")

    assert pickles_of(pickled) == {
        "pytorch_model.bin": "model.safetensors",
        "sparse_linear.pt": "sparse_linear.safetensors",
        "colbert_linear.pt": "colbert_linear.safetensors",
        "2_Dense/pytorch_model.bin": "2_Dense/model.safetensors",
    }
