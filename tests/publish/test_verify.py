"""Verifying a folder, and what a repository on the Hub holds: every byte, everything beside, and the report."""

import json
from pathlib import Path

import pytest
from bundles import seal
from hub_repository import Repository, WritableHub
from publishing import Done, Run

from bge_export.bundle.integrity import MANIFEST, REPORT
from bge_export.parity.report import read_report, write_report

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "somebody/tiny-onnx"


def refused(done: Done, status: int, *parts: str) -> None:
    assert done.returncode == status, done.stdout + done.stderr
    for part in parts:
        assert part in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.fixture
def repository(bundle: Path, hub: WritableHub, command: Run) -> Repository:
    """A repository to which the folder was published."""
    done = command("publish", bundle, "--repo", REPO)
    assert done.returncode == 0, done.stderr
    return hub.repositories[REPO]


def changed(repository: Repository, **files: bytes) -> None:
    """Commit other files, as somebody else would; `__` in a name is a slash, `_` a dot."""
    named = {name.replace("__", "/").replace("_", "."): content for name, content in files.items()}
    repository.add({**repository.head, **named})


def test_what_was_published_is_verified_by_branch_and_by_commit(repository: Repository, command: Run) -> None:
    commit = repository.refs["main"]
    for name in (REPO, f"{REPO}@main", f"{REPO}@{commit}"):
        done = command("verify", name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{REPO} at {commit}: verified" in done.stdout


def test_documents_may_lie_beside(repository: Repository, command: Run) -> None:
    changed(repository, LICENSE=b"theirs", picture_png=b"png")
    assert command("verify", REPO).returncode == 0


def test_a_byte_that_changed_is_refused_by_name(repository: Repository, command: Run) -> None:
    changed(repository, onnx__model_onnx=repository.head["onnx/model.onnx"][:-1] + b"!")
    refused(command("verify", REPO), 3, "onnx/model.onnx", "not the file that was exported")


def test_a_file_that_was_added_is_refused_by_name_and_not_fetched(
    repository: Repository, hub: WritableHub, command: Run
) -> None:
    changed(repository, onnx__other_onnx=b"whose?")
    refused(command("verify", REPO), 3, "onnx/other.onnx", "does not list")
    assert hub.asked("resolve") <= 2  # the manifest alone, by HEAD and GET


def test_a_file_that_is_gone_is_refused_by_name(repository: Repository, command: Run) -> None:
    repository.add({name: content for name, content in repository.head.items() if name != "tokenizer.json"})
    refused(command("verify", REPO), 3, "tokenizer.json", "lacks")


def test_a_report_that_was_sealed_again_is_refused(
    repository: Repository, command: Run, bundle: Path, tmp_path: Path
) -> None:
    report = read_report(bundle / REPORT)
    lane = report.lanes[0]
    rows = (lane.rows[0].model_copy(update={"cosine": 0.5}), *lane.rows[1:])
    lanes = (lane.model_copy(update={"rows": rows}), *report.lanes[1:])
    write_report(report.model_copy(update={"lanes": lanes}), tmp_path / REPORT)
    changed(repository, parity_json=(tmp_path / REPORT).read_bytes())
    refused(command("verify", REPO), 1, "cosine")


def test_a_lane_that_is_required_and_missing_is_refused(repository: Repository, command: Run) -> None:
    refused(command("verify", REPO, "--require", "onnxruntime:cuda"), 1, "required-missing")


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd.json", "a/./b.json", "a b.json", "a\\b.json"])
def test_a_name_of_the_manifest_leads_nowhere(repository: Repository, command: Run, tmp_path: Path, name: str) -> None:
    manifest = json.loads(repository.head[MANIFEST])
    manifest["files"][name] = "0" * 64
    repository.add({**repository.head, MANIFEST: json.dumps(manifest).encode(), name: b"whose?"})
    refused(command("verify", REPO), 3, "no export writes")
    assert not list(tmp_path.rglob("outside.json"))


@pytest.mark.parametrize("name", ["parity.json", "bge_export.json", "config.json/x.json"])
def test_names_of_the_manifest_that_meet_are_refused(repository: Repository, command: Run, name: str) -> None:
    manifest = json.loads(repository.head[MANIFEST])
    manifest["files"][name] = "0" * 64
    repository.add({name: b"whose?", **repository.head, MANIFEST: json.dumps(manifest).encode()})
    refused(command("verify", REPO), 3, name.partition("/")[0])


def test_bytes_that_the_storage_changed_are_refused(repository: Repository, hub: WritableHub, command: Run) -> None:
    hub.lies["onnx/model.onnx"] = "0" * 64
    refused(command("verify", REPO), 3, "onnx/model.onnx", "not what the Hub promises")


@pytest.mark.parametrize("name", ["somebody/else", f"{REPO}@v9"])
def test_what_does_not_exist_is_a_usage_error(repository: Repository, command: Run, name: str) -> None:
    refused(command("verify", name), 2, name.partition("@")[0])


@pytest.mark.parametrize("name", ["tiny", "a/b/c", f"{REPO}@", f"{REPO}@../x", f"{REPO}@a b"])
def test_what_is_neither_folder_nor_repository_is_a_usage_error(command: Run, name: str) -> None:
    refused(command("verify", name), 2, "ORG/NAME@REVISION")


def test_a_repository_without_a_manifest_is_refused(hub: WritableHub, command: Run) -> None:
    hub.repositories[REPO] = Repository()
    hub.repositories[REPO].add({"onnx/model.onnx": b"whose?"})
    refused(command("verify", REPO), 3, MANIFEST, "nothing there was proven")


def test_a_folder_is_verified_too(bundle: Path, command: Run) -> None:
    facts = json.loads(command("verify", bundle, "--json").stdout)
    assert (facts["passed"], facts["where"]) == (True, f"the folder {bundle}")
    (bundle / "tokenizer.json").write_bytes(b"{}")
    refused(command("verify", bundle), 3, "tokenizer.json")


def test_parity_is_measured_again_and_the_report_stays(bundle: Path, tiny: Path, command: Run) -> None:
    before = (bundle / REPORT).read_bytes()
    done = command("verify", bundle, "--measure", "--reference", tiny, "--json", "--threads", 1)
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["measured"]["passed"], (bundle / REPORT).read_bytes() == before) == (0, True, True)


def test_measuring_needs_a_checkpoint(bundle: Path, command: Run) -> None:
    refused(command("verify", bundle, "--measure"), 2, "local checkpoint tiny", "--reference")


def test_what_is_exported_anew_has_the_same_bytes(bundle: Path, tiny: Path, command: Run) -> None:
    done = command("verify", bundle, "--rebuild", "--reference", tiny, "--threads", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    for target in ("onnx-fp32", "onnx-fp16"):
        assert f"{target}: exported anew: the same bytes" in done.stdout


def test_a_model_of_other_bytes_that_passes_is_found_by_exporting_anew(bundle: Path, tiny: Path, command: Run) -> None:
    """A graph whose name was changed gives the same vectors, so parity does not tell it apart."""
    import onnx

    path = bundle / "onnx/model.onnx"
    model = onnx.load(path)
    model.graph.name = "another"
    onnx.save(model, path)
    seal(bundle)
    assert command("parity", bundle, "--reference", tiny, "--runtime", "onnxruntime").returncode == 0
    refused(command("verify", bundle, "--rebuild", "--reference", tiny), 1, "other bytes of onnx/model.onnx")
