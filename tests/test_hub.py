"""The Hub with the real client, against a Hub on the loopback interface, each time in a process of its own."""

import json
import re
import socket
from pathlib import Path

import pytest
from hub_machine import CLIENT_CHUNK_BYTES, MODEL, TOKEN, Machine, large_weights, refused
from hub_server import COMMIT, Hub
from static_models import NORMALIZE, write_static_embedding


def test_a_model_is_fetched_with_only_what_decides_its_embeddings(hub: Hub, machine: Machine) -> None:
    result = machine.open()
    assert result["error"] is None, result
    assert (result["source"], result["revision"], Path(str(result["root"])).name) == (MODEL, COMMIT, COMMIT)
    assert hub.fetched() == {
        "1_Pooling/config.json", "config.json", "config_sentence_transformers.json", "model.safetensors",
        "modules.json", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    }  # fmt: skip
    assert result["stderr"] == ""


def test_a_model_with_heads_of_its_own_never_passes_for_its_encoder_alone(hub: Hub, machine: Machine) -> None:
    hub.files = {**hub.files, "sparse_linear.safetensors": hub.files["model.safetensors"]}
    refused(machine.open(), "CheckpointError", "colbert_linear.pt")


@pytest.mark.parametrize("inside", ["", "0_StaticEmbedding"])
def test_a_static_embedding_is_fetched_without_a_config_also_from_the_cache(
    tmp_path: Path, hub: Hub, machine: Machine, inside: str
) -> None:
    folder = write_static_embedding(tmp_path / "static", NORMALIZE, inside=inside)
    own = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.files = own | {"README.md": b"not wanted"}
    result = machine.open()
    assert result["error"] is None, result
    assert hub.fetched() == own.keys()
    assert result["digest"] == machine.open(str(folder))["digest"]
    assert machine.open(HF_ENDPOINT="http://127.0.0.1:9")["digest"] == result["digest"]


def test_hub_and_local_folder_have_one_digest(tmp_path: Path, machine: Machine) -> None:
    local = machine.open(str(tmp_path / "original"))
    assert local["digest"] == machine.open()["digest"]


def test_a_second_run_fetches_no_file_again(hub: Hub, machine: Machine) -> None:
    machine.open()
    hub.requests.clear()
    assert machine.open()["error"] is None
    assert hub.fetched() == set()


def test_a_commit_can_be_asked_for(machine: Machine) -> None:
    assert machine.open(revision=COMMIT)["revision"] == COMMIT


def test_the_token_stays_with_the_hub(hub: Hub, machine: Machine) -> None:
    assert machine.open(HF_TOKEN=TOKEN)["error"] is None
    sent = {path.startswith("/storage/"): token for _, path, _, token in hub.requests if "agent-harnesses" not in path}
    assert sent == {False: f"Bearer {TOKEN}", True: None}


def test_a_connection_that_ends_in_mid_file_is_resumed(tmp_path: Path, hub: Hub, machine: Machine) -> None:
    hub.files = {**hub.files, "model.safetensors": large_weights(tmp_path / "large.safetensors")}
    hub.cut["model.safetensors"] = CLIENT_CHUNK_BYTES + 100
    assert machine.open()["error"] is None
    asked = [bounds for method, path, bounds, _ in hub.requests if method == "GET" and path.startswith("/storage/")]
    assert asked == [None, f"bytes={CLIENT_CHUNK_BYTES}-"]


def test_a_connection_that_is_reset_in_mid_file_is_tried_again(hub: Hub, machine: Machine) -> None:
    hub.reset["model.safetensors"] = 100
    assert machine.open()["error"] is None
    gets = [method for method, path, _, _ in hub.requests if path == "/storage/model.safetensors" and method == "GET"]
    assert len(gets) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt"])
def test_wrong_bytes_are_refused_and_do_not_stay_in_the_cache(hub: Hub, machine: Machine, name: str) -> None:
    content = hub.files[name]
    hub.served[name] = content[:-1] + b"!"
    refused(machine.open(), "HubError", name, "not what the Hub promises", "run the command again")
    assert not [path for path in machine.cached("*") if path.is_file() and path.read_bytes() == hub.served[name]]
    hub.served.clear()
    assert machine.open()["error"] is None


def test_a_file_damaged_in_the_cache_is_refused_without_network_too(hub: Hub, machine: Machine) -> None:
    machine.open()
    blob = machine.cached("model.safetensors")[0].resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    refused(machine.open(HF_HUB_OFFLINE="1"), "HubError", "model.safetensors", "not what the Hub promises")


def test_offline_uses_what_is_in_the_cache(machine: Machine) -> None:
    online = machine.open()
    offline = machine.open(HF_HUB_OFFLINE="1")
    assert (offline["root"], offline["revision"]) == (online["root"], online["revision"])


def test_an_unreachable_hub_uses_what_is_in_the_cache(machine: Machine) -> None:
    online = machine.open()
    assert machine.open(HF_ENDPOINT=f"http://127.0.0.1:{closed_port()}")["root"] == online["root"]


def test_an_interrupted_download_is_not_taken_for_the_model(hub: Hub, machine: Machine) -> None:
    hub.served["model.safetensors"] = b"too short"
    refused(machine.open(), "HubError", "model.safetensors")
    refused(machine.open(HF_HUB_OFFLINE="1"), "HubError", MODEL, "HF_HUB_OFFLINE")


def test_a_cache_that_another_tool_began_is_not_taken_for_the_model(hub: Hub, machine: Machine) -> None:
    machine.open()
    machine.cached("model.safetensors")[0].unlink()
    refused(machine.open(HF_HUB_OFFLINE="1"), "HubError", MODEL, "HF_HUB_OFFLINE")


def test_offline_without_cache_says_so(machine: Machine) -> None:
    refused(machine.open(HF_HUB_OFFLINE="1"), "HubError", MODEL, "HF_HUB_OFFLINE", "local folder")


def test_a_closed_port_ends_within_ten_seconds(machine: Machine) -> None:
    result = machine.open(HF_ENDPOINT=f"http://127.0.0.1:{closed_port()}")
    refused(result, "HubError", MODEL, "Connection refused", "local folder")
    assert float(str(result["wall"])) <= 10


@pytest.mark.parametrize("revision", ["", COMMIT])
def test_a_hub_that_never_answers_ends_within_ten_seconds(machine: Machine, revision: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = machine.open(revision=revision, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}")
    refused(result, "HubError", MODEL, "in time", "local folder")
    assert float(str(result["wall"])) <= 10


def test_an_unknown_model_is_refused(machine: Machine) -> None:
    result = machine.open("someone/else")
    refused(result, "CheckpointError", "someone/else", "spelling", "hf auth login")


def test_an_unknown_revision_is_refused(machine: Machine) -> None:
    refused(machine.open(revision="v9"), "CheckpointError", MODEL, "'v9'")


@pytest.mark.parametrize("revision", ["../../etc", "a b", "-x"])
def test_a_revision_that_is_none_is_refused(hub: Hub, machine: Machine, revision: str) -> None:
    refused(machine.open(revision=revision), "CheckpointError", "not a valid revision")
    assert hub.requests == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_asks_to_log_in(hub: Hub, machine: Machine, status: int) -> None:
    hub.refusal, hub.refuse_files = (status, "GatedRepo", f"Access restricted, you sent Bearer {TOKEN}"), True
    result = machine.open(HF_TOKEN=TOKEN)
    refused(result, "HubError", MODEL, "gated", "hf auth login", "HF_TOKEN")
    assert TOKEN not in json.dumps(result)


@pytest.mark.parametrize("status", [401, 403])
def test_a_private_model_asks_to_log_in(hub: Hub, machine: Machine, status: int) -> None:
    hub.refusal = (status, "", "Invalid credentials in Authorization header")
    refused(machine.open(), "HubError", MODEL, str(status), "hf auth login", "HF_TOKEN")


def test_a_hub_that_is_down_says_to_try_later(hub: Hub, machine: Machine) -> None:
    hub.refusal = (503, "", "down")
    refused(machine.open(), "HubError", "503", "Try later", "local folder")


def test_a_token_that_no_header_can_hold_is_not_printed(machine: Machine) -> None:
    result = machine.open(HF_TOKEN=f"{TOKEN}ü")
    refused(result, "HubError", MODEL)
    assert not re.search("SecretToken", json.dumps(result))


def test_a_page_that_is_no_answer_of_the_hub_is_refused(hub: Hub, machine: Machine) -> None:
    hub.info = lambda: ["please log in to this network"]  # type: ignore[method-assign,assignment,return-value]
    refused(machine.open(), "HubError", "not one of the Hub", "HF_ENDPOINT")


def test_a_model_with_pickled_weights_only_is_refused_before_anything_is_fetched(hub: Hub, machine: Machine) -> None:
    hub.files = {name: content for name, content in hub.files.items() if name != "model.safetensors"}
    refused(machine.open(), "CheckpointError", "pytorch_model.bin", "pickle", "--allow-pickle")
    assert hub.fetched() == set()


def test_a_model_without_config_is_refused(hub: Hub, machine: Machine) -> None:
    hub.files = {name: content for name, content in hub.files.items() if name != "config.json"}
    refused(machine.open(), "CheckpointError", MODEL, "config.json")


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, machine: Machine) -> None:
    machine.home = tmp_path / "file"
    machine.home.write_text("in the way")
    refused(machine.open(), "HubError", "cache", "HF_HOME")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
