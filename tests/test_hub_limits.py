"""A Hub, mirror or proxy that means harm, or is broken: it changes no file of the user's, and ends in time."""

import os
import time
from pathlib import Path

import pytest
from hub_machine import MODEL, Machine, large_weights, refused
from hub_server import COMMIT, Hub, git_hash

OUT_OF_BLOBS = "../../../../"
"""From the folder of a model's bytes in the cache to the folder that holds the test's files."""
BAD_ETAGS = ["W/abc", "0" * 39, "0" * 41, f"{'0' * 40}/..", "CON", " ", "a" * 63, "é" * 40]


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors"])
def test_an_etag_that_leads_out_of_the_cache_deletes_nothing(
    tmp_path: Path,
    hub: Hub,
    machine: Machine,
    name: str,
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    hub.etags[name] = f"{OUT_OF_BLOBS}victim"
    refused(machine.open(), "HubError", MODEL, name, "hexadecimal", "HF_ENDPOINT")
    assert victim.read_text() == "mine"
    assert name not in hub.fetched()


def test_an_etag_that_leads_out_of_the_cache_writes_nothing(tmp_path: Path, hub: Hub, machine: Machine) -> None:
    hub.etags["vocab.txt"] = f"{OUT_OF_BLOBS}planted"
    refused(machine.open(), "HubError", "vocab.txt", "hexadecimal")
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("etag", BAD_ETAGS)
def test_an_etag_that_is_no_digest_is_refused_before_the_file_is_fetched(hub: Hub, machine: Machine, etag: str) -> None:
    hub.etags["config.json"] = etag
    refused(machine.open(), "HubError", "config.json", "hexadecimal")
    assert "config.json" not in hub.fetched()


def test_a_commit_that_leads_out_of_the_cache_writes_nothing(tmp_path: Path, hub: Hub, machine: Machine) -> None:
    hub.commit = f"{OUT_OF_BLOBS}planted"
    refused(machine.open(), "HubError", "commit", "hexadecimal")
    assert not list(tmp_path.rglob("planted*"))
    cached = [path for path in machine.cached("*") if path.is_file()]
    assert not [path for path in cached if b"planted" in path.read_bytes()]


@pytest.mark.parametrize("sha", ["../../x", "", "0" * 39, None])
def test_a_listing_of_no_commit_is_refused_before_anything_is_fetched(
    hub: Hub,
    machine: Machine,
    sha: str | None,
) -> None:
    listing = hub.info() | {"sha": sha}
    hub.info = lambda: listing  # type: ignore[method-assign]
    refused(machine.open(), "HubError", MODEL, "commit", "hexadecimal")
    assert hub.fetched() == set()


@pytest.mark.parametrize(("key", "value"), [("blobId", "../../x"), ("blobId", 7), ("size", 2**40), ("size", -1)])
def test_a_listing_of_no_digest_or_size_is_refused_before_anything_is_fetched(
    hub: Hub,
    machine: Machine,
    key: str,
    value: object,
) -> None:
    listing = hub.info()
    for sibling in listing["siblings"]:  # type: ignore[attr-defined]
        if sibling["rfilename"] == "vocab.txt":
            sibling[key] = value
    hub.info = lambda: listing  # type: ignore[method-assign]
    refused(machine.open(), "HubError", "vocab.txt")
    assert hub.fetched() == set()


def test_wrong_bytes_behind_a_link_out_of_the_cache_are_neither_believed_nor_removed(
    tmp_path: Path,
    machine: Machine,
) -> None:
    machine.open()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    link = machine.cached("vocab.txt")[0]
    link.unlink()
    link.symlink_to(victim)
    for environment in ({"HF_HUB_OFFLINE": "1"}, {}):
        refused(machine.open(**environment), "HubError", "vocab.txt", "leads out of it")
    assert victim.read_text() == "mine"
    assert link.is_symlink()


def test_right_bytes_behind_a_link_out_of_the_cache_are_not_believed_either(tmp_path: Path, machine: Machine) -> None:
    machine.open()
    link = machine.cached("vocab.txt")[0]
    content = link.read_bytes()
    outside = tmp_path / git_hash(content)
    outside.write_bytes(content)
    link.unlink()
    link.symlink_to(outside)
    refused(machine.open(HF_HUB_OFFLINE="1"), "HubError", "vocab.txt", "leads out of it")
    assert outside.read_bytes() == content


def test_a_link_of_the_cache_that_takes_a_way_round_outside_removes_nothing_there(
    tmp_path: Path,
    machine: Machine,
) -> None:
    machine.open()
    link = machine.cached("vocab.txt")[0]
    blob, between = link.resolve(), tmp_path / "mine"
    between.symlink_to(blob)
    link.unlink()
    link.symlink_to(between)
    blob.write_bytes(b"damaged")
    refused(machine.open(HF_HUB_OFFLINE="1"), "HubError", "vocab.txt", "leads out of it")
    assert between.is_symlink()
    assert blob.exists()


def test_links_of_the_cache_that_go_round_in_a_circle_are_refused(machine: Machine) -> None:
    machine.open()
    link = machine.cached("vocab.txt")[0]
    link.unlink()
    link.symlink_to(link.name)
    refused(machine.open(HF_HUB_OFFLINE="1"), "HubError", "vocab.txt", "leads out")


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors"])
def test_a_file_that_does_not_end_is_stopped_at_the_promised_size(hub: Hub, machine: Machine, name: str) -> None:
    hub.endless.add(name)
    hub.served[name] = hub.files[name] * 200
    refused(machine.open(), "HubError", name, "more than the", "HF_ENDPOINT")
    assert hub.sent[name] < 32 << 20
    assert not machine.cached("*.incomplete")


@pytest.mark.parametrize("fault", ["drip", "silent"])
def test_a_transfer_that_stalls_ends_in_time_and_leaves_nothing(
    tmp_path: Path,
    hub: Hub,
    machine: Machine,
    fault: str,
) -> None:
    hub.files = {**hub.files, "model.safetensors": large_weights(tmp_path / "large.safetensors")}
    getattr(hub, fault)["model.safetensors"] = 100
    start = time.monotonic()
    machine.before = "from bge_export.checkpoint import hub_transfer; hub_transfer.STALL_SECONDS = 2.0"
    refused(machine.open(), "HubError", "model.safetensors", "stalled", "run the command again")
    assert time.monotonic() - start < 20
    assert not machine.cached("*.incomplete")


def test_packed_bytes_are_refused(hub: Hub, machine: Machine) -> None:
    hub.packed.add("vocab.txt")
    refused(machine.open(), "HubError", "vocab.txt", "packed")


def test_a_whole_model_arrives_with_the_limits_on(hub: Hub, machine: Machine) -> None:
    result = machine.open()
    assert (result["error"], Path(str(result["root"])).name) == (None, COMMIT)
    assert os.path.lexists(machine.cached("vocab.txt")[0])
