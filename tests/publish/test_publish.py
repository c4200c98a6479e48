"""Publishing with the real client, against a Hub on the loopback interface: one commit, or none."""

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundles import seal
from hub_repository import DROPPED, LOST, TOKEN, Repository, WritableHub, pull
from huggingface_hub import constants
from publishing import Done, Run

from bge_export.bundle.integrity import CARD, GENERATED_CARD, MANIFEST, REPORT
from bge_export.bundle.manifest import read_manifest
from bge_export.publish import contents
from bge_export.texts.fixtures import fixtures_folder

# huggingface_hub passes a file to httpx in a way that httpx would like to be another.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "somebody/tiny-onnx"
TITLE = "Artifacts of tiny, proven by bge-export"


def ours(bundle: Path) -> dict[str, bytes]:
    """Return what must be in the repository."""
    names = {*read_manifest(bundle).files, MANIFEST, REPORT}
    return {name: (bundle / name).read_bytes() for name in names}


def holds(repository: Repository, bundle: Path, revision: str = "main") -> bool:
    """Return whether a revision holds the folder and nothing else but documents."""
    files = dict(repository.at(revision) or {})
    for document in (".gitattributes", "LICENSE", CARD):
        files.pop(document, None)
    return files == ours(bundle)


def refused(done: Done, status: int, *parts: str) -> None:
    assert done.returncode == status, done.stdout + done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def test_a_folder_is_published_in_one_commit_with_its_proof(bundle: Path, hub: WritableHub, command: Run) -> None:
    (bundle / "LICENSE").write_text("mine", "utf-8")
    done = command("publish", bundle, "--repo", REPO)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[REPO]
    assert (holds(repository, bundle), len(repository.commits)) == (True, 2)
    assert "LICENSE" not in repository.head
    assert f"# {REPO.partition('/')[2]}\n" in repository.head[CARD].decode()
    assert repository.refs["main"] in done.stdout
    assert "every digest is the folder's" in done.stdout


def test_a_large_file_is_sent_from_disk(
    bundle: Path, hub: WritableHub, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "HELD_BYTES", 100_000)
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert holds(hub.repositories[REPO], bundle)


@pytest.mark.parametrize("step", ["info", "preupload", "batch"])
def test_a_large_file_that_changes_meanwhile_is_not_committed(
    bundle: Path, hub: WritableHub, command: Run, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(contents, "HELD_BYTES", 100_000)
    model = bundle / "onnx/model.onnx"
    hub.before[step] = lambda: model.write_bytes(model.read_bytes()[:-1] + b"!")
    refused(command("publish", bundle, "--repo", REPO), 3, "onnx/model.onnx", "as it was")
    assert (hub.asked("commit"), set(hub.repositories[REPO].head)) == (0, {".gitattributes"})


def stopped(bundle: Path, hub: WritableHub, step: str, stop: signal.Signals) -> int:
    """Publish in a process that gets a signal while the Hub works on its request; return the process's status.

    What the Hub has begun it still does.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    clean |= {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    words = [sys.executable, "-m", "bge_export", "publish", str(bundle), "--repo", REPO]
    process: list[subprocess.Popen[bytes]] = []
    hub.before[step] = lambda: process[0].send_signal(stop)

    # A suite that a shell runs in the background ignores SIGINT, and so would the command.
    attentive = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process.append(subprocess.Popen(words, env=clean, preexec_fn=attentive, **quiet))
    return process[0].wait(120)


@pytest.mark.parametrize("step", ["preupload", "commit"])
def test_an_interrupt_leaves_the_old_or_the_new_revision(
    bundle: Path, hub: WritableHub, command: Run, step: str
) -> None:
    repository = hub.repositories[REPO] = Repository()
    old = repository.add({".gitattributes": b""})
    assert stopped(bundle, hub, step, signal.SIGINT) in {0, 3}
    assert repository.refs["main"] == old or holds(repository, bundle)

    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert (holds(repository, bundle), len(repository.commits)) == (True, 2)


@pytest.mark.parametrize("step", ["create", "batch", "put", "commit"])
def test_a_killed_process_leaves_the_old_or_the_new_revision(
    bundle: Path, hub: WritableHub, command: Run, step: str
) -> None:
    assert stopped(bundle, hub, step, signal.SIGKILL) == -signal.SIGKILL

    for _ in range(2):  # the Hub goes on for a moment, so that the first call may find its head moved
        done = command("publish", bundle, "--repo", REPO)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[REPO]
    assert (holds(repository, bundle), len(repository.commits)) == (True, 2)


def test_the_token_is_sent_to_the_hub_and_not_to_its_storage(bundle: Path, hub: WritableHub, command: Run) -> None:
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert {token for name, token in hub.requests if name == "put"} == {None}
    assert {token for name, token in hub.requests if name == "commit"} == {f"Bearer {TOKEN}"}


def test_a_second_call_finds_all_of_it_and_commits_nothing(bundle: Path, hub: WritableHub, command: Run) -> None:
    command("publish", bundle, "--repo", REPO)
    done = command("publish", bundle, "--repo", REPO, "--json")
    facts = json.loads(done.stdout)
    assert (facts["already"], facts["revision"]) == (True, hub.repositories[REPO].refs["main"])
    assert hub.asked("commit") == 1


def test_only_what_changed_is_sent_again(bundle: Path, hub: WritableHub, command: Run) -> None:
    command("publish", bundle, "--repo", REPO)
    repository = hub.repositories[REPO]
    repository.add({**repository.head, "onnx/model.onnx": b"another model"})
    facts = json.loads(command("publish", bundle, "--repo", REPO, "--json").stdout)
    assert facts["changed"] == ["onnx/model.onnx"]
    assert holds(repository, bundle)


def test_a_dry_run_prints_files_and_changes_nothing(bundle: Path, hub: WritableHub, command: Run) -> None:
    done = command("publish", bundle, "--repo", REPO, "--dry-run")
    assert done.returncode == 0, done.stderr
    for name, content in ours(bundle).items():
        assert any(name in line and str(len(content)) in line for line in done.stdout.splitlines())
    assert "would be created" in done.stderr
    assert {name for name, _ in hub.requests} == {"info"}


def test_a_dry_run_needs_no_hub(bundle: Path, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = command("publish", bundle, "--repo", REPO, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "onnx/model.onnx" in done.stdout
    assert "HF_HUB_OFFLINE" in done.stderr


def test_a_folder_that_the_gate_refuses_is_not_published(bundle: Path, hub: WritableHub, command: Run) -> None:
    report = json.loads((bundle / REPORT).read_text("utf-8"))
    report["lanes"][0]["rows"][0]["cosine"] = 0.5
    (bundle / REPORT).write_text(json.dumps(report), "utf-8")
    done = command("publish", bundle, "--repo", REPO)
    assert (done.returncode, hub.requests) == (1, [])
    assert "edited-report" in done.stdout


def test_a_lane_that_is_required_and_missing_refuses_by_name(bundle: Path, hub: WritableHub, command: Run) -> None:
    done = command("publish", bundle, "--repo", REPO, "--require", "onnxruntime:cuda")
    assert (done.returncode, hub.requests) == (1, [])
    assert "required-missing" in done.stdout


@pytest.mark.parametrize("name", ["onnx/model.onnx", "tokenizer.json"])
def test_a_folder_whose_bytes_changed_is_not_published(bundle: Path, hub: WritableHub, command: Run, name: str) -> None:
    (bundle / name).write_bytes((bundle / name).read_bytes() + b" ")
    refused(command("publish", bundle, "--repo", REPO), 3, name)
    assert hub.requests == []


def test_a_link_is_not_published(bundle: Path, hub: WritableHub, command: Run, tmp_path: Path) -> None:
    (bundle / "config.json").rename(tmp_path / "config.json")
    (bundle / "config.json").symlink_to(tmp_path / "config.json")
    refused(command("publish", bundle, "--repo", REPO), 3, "config.json", "is a link")
    assert hub.requests == []


def test_a_folder_without_a_report_is_not_published(bundle: Path, hub: WritableHub, command: Run) -> None:
    (bundle / REPORT).unlink()
    refused(command("publish", bundle, "--repo", REPO), 3, REPORT)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "../x", "https://hub/a/b"])
def test_a_repository_that_is_none_is_a_usage_error(bundle: Path, command: Run, name: str) -> None:
    refused(command("publish", bundle, "--repo", name), 2, "ORG/NAME")


@pytest.mark.parametrize("step", ["preupload", "batch", "put"])
def test_an_error_of_the_hub_in_the_middle_is_overcome(bundle: Path, hub: WritableHub, command: Run, step: str) -> None:
    hub.faults[step] = [500]
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert holds(hub.repositories[REPO], bundle)


@pytest.mark.parametrize("fault", [500, DROPPED])
def test_a_commit_that_fails_leaves_the_old_revision(
    bundle: Path, hub: WritableHub, command: Run, fault: int | str
) -> None:
    repository = hub.repositories[REPO] = Repository()
    old = repository.add({".gitattributes": b""})
    hub.faults["commit"] = [fault]
    refused(command("publish", bundle, "--repo", REPO), 3, REPO, "committing", "as it was", old[:12], "again")
    assert repository.refs["main"] == old

    hub.requests.clear()
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert (holds(repository, bundle), hub.asked("put")) == (True, 0)


def test_a_commit_whose_answer_is_lost_is_found(bundle: Path, hub: WritableHub, command: Run) -> None:
    hub.faults["commit"] = [LOST]
    done = command("publish", bundle, "--repo", REPO)
    assert done.returncode == 0, done.stderr
    assert (holds(hub.repositories[REPO], bundle), hub.asked("commit")) == (True, 1)


def test_nothing_is_claimed_of_a_commit_that_nobody_can_look_for(bundle: Path, hub: WritableHub, command: Run) -> None:
    hub.repositories[REPO] = Repository()
    hub.repositories[REPO].add({})
    hub.faults["commit"] = [LOST]
    hub.faults["info"] = [None, 500]
    refused(command("publish", bundle, "--repo", REPO), 3, "not known", "the new revision")
    assert "holds all of it already" in command("publish", bundle, "--repo", REPO).stdout


def test_a_transfer_that_never_succeeds_leaves_the_old_revision(bundle: Path, hub: WritableHub, command: Run) -> None:
    hub.always["put"] = 403
    refused(command("publish", bundle, "--repo", REPO), 3, "uploading", "403", "as it was")
    assert set(hub.repositories[REPO].head) == {".gitattributes"}


def test_a_wrong_digest_that_is_read_back_is_named(bundle: Path, hub: WritableHub, command: Run) -> None:
    hub.lies["onnx/model.onnx"] = "0" * 64
    done = command("publish", bundle, "--repo", REPO)
    new = hub.repositories[REPO].refs["main"]
    refused(done, 3, "onnx/model.onnx", "other bytes", new[:12], "Do not use this revision")


@pytest.mark.parametrize(("status", "hint"), [(401, "hf auth login"), (403, "--create-pr")])
@pytest.mark.parametrize("step", ["create", "preupload", "commit"])
def test_a_token_that_may_not_write_is_named(
    bundle: Path, hub: WritableHub, command: Run, step: str, status: int, hint: str
) -> None:
    hub.always[step] = status
    refused(command("publish", bundle, "--repo", REPO), 3, REPO, str(status), hint)


def test_a_wrong_token_is_named(bundle: Path, hub: WritableHub, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(command("publish", bundle, "--repo", REPO), 3, REPO, "401", "HF_TOKEN")
    assert REPO not in hub.repositories


def test_a_head_that_moved_is_not_overwritten(bundle: Path, hub: WritableHub, command: Run) -> None:
    repository = hub.repositories[REPO] = Repository()
    repository.add({".gitattributes": b""})
    hub.before["commit"] = lambda: repository.add({".gitattributes": b"", CARD: b"# Another hand"})
    done = command("publish", bundle, "--repo", REPO)
    refused(done, 3, "somebody else changed it", "by another commit", repository.refs["main"][:12])
    assert repository.head[CARD] == b"# Another hand"

    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert holds(repository, bundle)


OTHERS = ["onnx/model_fp16_old.onnx", "notes.txt", "pytorch_model.bin"]


@pytest.mark.parametrize("name", OTHERS)
def test_files_that_nothing_proves_refuse_by_name(bundle: Path, hub: WritableHub, command: Run, name: str) -> None:
    repository = hub.repositories[REPO] = Repository()
    old = repository.add({".gitattributes": b"", "LICENSE": b"theirs", name: b"whose?"})
    refused(command("publish", bundle, "--repo", REPO), 2, name, "--remove-others")
    assert (repository.refs["main"], hub.asked("preupload")) == (old, 0)

    facts = json.loads(command("publish", bundle, "--repo", REPO, "--remove-others", "--json").stdout)
    assert (facts["removed"], holds(repository, bundle), len(repository.commits)) == ([name], True, 2)
    assert repository.head["LICENSE"] == b"theirs"


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b", ".git/config", "-\x1b[31mred"])
def test_a_name_of_the_hub_leads_nowhere(bundle: Path, hub: WritableHub, command: Run, name: str) -> None:
    repository = hub.repositories[REPO] = Repository()
    old = repository.add({name: b"whose?"})
    done = command("publish", bundle, "--repo", REPO)
    refused(done, 2, "--remove-others")
    assert "\x1b[31m" not in done.stderr

    command("publish", bundle, "--repo", REPO, "--remove-others")
    assert holds(repository, bundle) or repository.refs["main"] == old


def test_a_repository_that_ignores_a_file_refuses_before_the_commit(
    bundle: Path, hub: WritableHub, command: Run
) -> None:
    hub.ignored.add("tokenizer.json")
    refused(command("publish", bundle, "--repo", REPO), 2, "tokenizer.json", ".gitignore")
    assert hub.asked("commit") == 0


def made_of(bundle: Path, base: str, revision: str) -> None:
    """Let a folder say that it was exported from a model on the Hub."""
    fields = json.loads((bundle / MANIFEST).read_text("utf-8"))
    seal(bundle, source=fields["source"] | {"id": base, "revision": revision})


def test_the_card_takes_licence_and_languages_from_the_base(bundle: Path, hub: WritableHub, command: Run) -> None:
    base = hub.repositories["someone/base"] = Repository()
    made_of(bundle, "someone/base", base.add({}))
    hub.cards["someone/base"] = {"license": "apache-2.0", "language": ["en", "zh"]}
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    card = hub.repositories[REPO].head[CARD].decode()
    for line in ("base_model: someone/base", "license: apache-2.0", "  - en", "  - zh"):
        assert f"\n{line}\n" in card

    assert command("publish", bundle, "--repo", REPO, "--license", "mit").returncode == 0
    assert "\nlicense: mit\n" in hub.repositories[REPO].head[CARD].decode()


def test_a_base_that_is_gone_gives_no_licence(bundle: Path, hub: WritableHub, command: Run) -> None:
    made_of(bundle, "someone/base", "a" * 40)
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert "license:" not in hub.repositories[REPO].head[CARD].decode()


def test_a_card_of_the_users_own_is_published_as_it_is(bundle: Path, hub: WritableHub, command: Run) -> None:
    (bundle / CARD).write_text("# Mine\n", "utf-8")
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert hub.repositories[REPO].head[CARD] == b"# Mine\n"


def test_a_generated_card_with_other_figures_is_made_anew(bundle: Path, hub: WritableHub, command: Run) -> None:
    (bundle / CARD).write_text(f"| `onnx/model.onnx` | perfect |\n{GENERATED_CARD}\n", "utf-8")
    assert command("publish", bundle, "--repo", REPO).returncode == 0
    assert "perfect" not in hub.repositories[REPO].head[CARD].decode()


def test_front_matter_that_the_hub_refuses_is_told_before_anything_is_sent(
    bundle: Path, hub: WritableHub, command: Run
) -> None:
    (bundle / CARD).write_text("---\nlicense: my own\n---\n# Mine\n", "utf-8")
    hub.front_matter = '"license" must be one of a list'
    refused(command("publish", bundle, "--repo", REPO), 2, CARD, "must be one of a list")
    assert (hub.asked("preupload"), hub.asked("commit")) == (0, 0)


def test_a_pull_request_is_opened_from_the_head(bundle: Path, hub: WritableHub, command: Run) -> None:
    repository = hub.repositories[REPO] = Repository()
    old = repository.add({".gitattributes": b""})
    facts = json.loads(command("publish", bundle, "--repo", REPO, "--create-pr", "--json").stdout)
    assert facts["pull_request"] == 1
    assert (repository.refs["main"], holds(repository, bundle, "refs/pr/1")) == (old, True)


def test_a_pull_request_is_not_opened_twice(bundle: Path, hub: WritableHub, command: Run) -> None:
    repository = hub.repositories[REPO] = Repository()
    repository.add({".gitattributes": b""})
    hub.faults["commit"] = [LOST]
    for already in (False, True):
        facts = json.loads(command("publish", bundle, "--repo", REPO, "--create-pr", "--json").stdout)
        assert (facts["pull_request"], facts["already"]) == (1, already)
    assert (len(repository.pulls), hub.asked("commit")) == (1, 1)


def test_a_pull_request_that_holds_something_older_is_resumed(bundle: Path, hub: WritableHub, command: Run) -> None:
    repository = hub.repositories[REPO] = Repository()
    repository.add({".gitattributes": b""})
    repository.add({".gitattributes": b"", "config.json": b"{}"}, "refs/pr/1")
    repository.pulls += [pull(REPO, 1, TITLE), pull(REPO, 2, TITLE, author="stranger"), pull(REPO, 3, "Another")]
    facts = json.loads(command("publish", bundle, "--repo", REPO, "--create-pr", "--json").stdout)
    assert (facts["pull_request"], len(repository.pulls)) == (1, 3)
    assert holds(repository, bundle, "refs/pr/1")


def test_a_pull_request_needs_a_repository(bundle: Path, hub: WritableHub, command: Run) -> None:
    refused(command("publish", bundle, "--repo", REPO, "--create-pr"), 2, REPO, "leave --create-pr out")
    assert hub.repositories == {}


def test_limits_of_ones_own_are_named_on_the_card_and_in_the_commit(
    bundle: Path, hub: WritableHub, command: Run, tmp_path: Path
) -> None:
    limits = tmp_path / "limits.toml"
    shutil.copyfile(fixtures_folder() / "thresholds.toml", limits)
    digest = hashlib.sha256(limits.read_bytes()).hexdigest()
    assert command("publish", bundle, "--repo", REPO, "--thresholds", limits).returncode == 0
    repository = hub.repositories[REPO]
    assert f"by the publisher's own limits (sha256 {digest})" in repository.head[CARD].decode()
    assert f"limits of the publisher's own, sha256 {digest}" in repository.messages[-1]
