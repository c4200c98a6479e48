"""A TorchScript file is a program: one that reaches outside of the model is refused before torch sees it."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import POLICY, artifact_of, report_of, small_corpus

from bge_export.contracts import Target
from bge_export.errors import ArtifactError
from bge_export.foreign import torchscript as foreign
from bge_export.formats._torchscript_file import OUTSIDE, OWN_DOMAINS, load_torchscript
from bge_export.parity.gate.judge import judge
from bge_export.runtimes.torchscript import RUNTIME
from bge_export.token_tables import open_lookup


class Writing(torch.nn.Module):
    """A module that overwrites a file when it is run."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        held = torch.from_file(self.path, True, 4, dtype=torch.uint8)
        held.copy_(torch.ones(4, dtype=torch.uint8))
        return input_ids + held[0]


@pytest.fixture
def writing(tmp_path: Path) -> tuple[Path, Path]:
    """Return a file of the user's, and a TorchScript file that overwrites it when it is run."""
    users, model = tmp_path / "users.txt", tmp_path / "model.pt"
    users.write_bytes(b"mine")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        module = torch.jit.script(Writing(str(users)))
        torch.jit.save(module, str(model))  # type: ignore[no-untyped-call]
    return users, model


def opened(path: Path) -> object:
    artifact = replace(artifact_of(), target=Target("torchscript", "fp32"), root=path.parent, model=path.name)
    return RUNTIME.open(artifact, "cpu", 1)


WAYS: dict[str, Callable[[Path], object]] = {
    "loading": lambda path: load_torchscript(path, "cpu"),
    "the runtime": opened,
    "the token table": lambda path: open_lookup(path, "torchscript"),
    "files of others": foreign.read,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_writes_files_is_not_run(way: str, writing: tuple[Path, Path]) -> None:
    users, model = writing
    with pytest.raises(ArtifactError, match="aten::from_file"):
        WAYS[way](model)
    assert users.read_bytes() == b"mine"


def test_the_gate_refuses_such_an_operator_by_name() -> None:
    verdict = judge(report_of(operators=("aten::linear", "aten::from_file")), POLICY, small_corpus())
    assert {bad.rule for bad in verdict.failures} == {"operators"}


REACHING = ("file", "print", "save", "warn", "rpc", "python", "profile", "statvalue", "timepoint")


def test_every_operator_of_torch_that_names_what_is_outside_is_on_the_list() -> None:
    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    own = {name for name in names if name.partition("::")[0] in OWN_DOMAINS}
    assert len(own) > 500

    reaching = {name for name in own if any(word in name.lower() for word in REACHING)}
    assert reaching - OUTSIDE == {
        "aten::_test_warn_in_autograd",
        "aten::isprintable",
    }  # a test of torch, and a question


class Warns(torch.nn.Module):
    """A module that writes to standard error when it is run."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        warnings.warn("heard")  # noqa: B028 - scripts take no level
        return input_ids


def test_a_file_that_warns_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(Warns()), str(path))  # type: ignore[no-untyped-call]
    with pytest.raises(ArtifactError, match="calls aten::warn, which reaches outside"):
        load_torchscript(path, "cpu")
