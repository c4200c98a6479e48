"""`parity --serve`: whatever browser opens the page is measured, held to the same checks, and joins the report."""

import json
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from threading import Thread

import pytest
from conftest import needs_client

from bge_export import commands
from bge_export.commands import check_parity
from bge_export.commands.browsers import Browsers
from bge_export.errors import ClientError
from bge_export.javascript.browser import FLAGS
from bge_export.javascript.packages import find_chromium
from bge_export.javascript.served import ServedBrowser, Visitor, browser_name, page_address, visitors
from bge_export.javascript.server import Loopback

TEXTS = ("That is a happy person", "Hello", "ΟΔΟΣ ΜΑΚΡΥΣ")
AGENTS = {
    "chrome": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/150.0 Safari/537",
    "edge": "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0 Safari/537 Edg/150.0",
    "firefox": "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
    "safari": "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 Version/26.0 Safari/604.1",
    "unknown": "curl/8",
}


@pytest.mark.parametrize("name", AGENTS)
def test_a_browser_is_named_by_its_user_agent(name: str) -> None:
    assert browser_name(AGENTS[name]) == name


def greet(server: Loopback, page: object, agent: str = AGENTS["firefox"]) -> None:
    body = json.dumps({"page": page, "agent": agent, "webgpu": False}).encode()
    with urllib.request.urlopen(server.address + "hello?page=any", body, timeout=10) as response:
        assert response.status == 204


@pytest.fixture
def server(tmp_path: Path):
    loopback = Loopback({"js": tmp_path})
    yield loopback
    loopback.close()


def test_it_ends_when_those_asked_for_have_come(server: Loopback) -> None:
    greet(server, "1")
    greet(server, "1")  # a page that was loaded again is no other browser
    greet(server, "2", AGENTS["safari"])
    greet(server, "3", AGENTS["chrome"])
    came = [visitor.browser for visitor in visitors(server, ("safari", "firefox"), 1)]
    assert came == ["firefox", "safari"]


def test_without_names_the_first_ends_it(server: Loopback) -> None:
    greet(server, "1")
    greet(server, "2")
    assert len(list(visitors(server, (), 1))) == 1


def test_one_that_does_not_come_is_an_error(server: Loopback) -> None:
    greet(server, "1")
    with pytest.raises(ClientError, match=r"safari did not open the page within 0\.2 s"):
        list(visitors(server, ("firefox", "safari"), 0.2))


def test_pages_that_did_not_greet_get_nothing(server: Loopback) -> None:
    greet(server, "1")
    greet(server, ["no name"])
    assert server.channel("2") is None
    assert server.channel("1") is not None
    for number in range(200):
        greet(server, f"page {number}")
    assert server.channel("page 199") is None  # whoever has the address cannot fill the memory


def test_webgpu_is_a_device_only_where_the_browser_has_it(server: Loopback) -> None:
    without = ServedBrowser(server, Visitor("safari", "own", webgpu=False)).devices()
    assert set(without) == {f"web:safari@{version}" for version in ("2.5", "2.17", "3", "4")}
    within = ServedBrowser(server, Visitor("safari", "own", webgpu=True)).devices()
    assert set(within) - set(without) == {"webgpu:safari@3", "webgpu:safari@4"}


def test_chromium_opens_the_page_and_its_rows_are_in_the_report(
    tiny_export: commands.Exported, tiny: Path, tmp_path: Path
) -> None:
    needs_client("chromium@4")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), "utf-8")
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:

        def open_page(address: str) -> None:
            assert address.startswith("http://127.0.0.1:")
            command = [find_chromium(), *FLAGS, "--disable-gpu", f"--user-data-dir={profile}", address]
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        browsers = Browsers(open_page, wait_for=("chrome",), versions=("2.17", "4"))
        try:
            proof = check_parity(
                tiny_export.folder, str(tiny), texts=texts, report_path=tmp_path / "report.json", browsers=browsers
            )
        finally:
            for process in started:
                process.terminate()
                process.wait(20)
    assert [bad.message for bad in proof.verdict.failures] == []
    lanes = {(lane.target, f"{lane.runtime}:{lane.device}") for lane in proof.report.lanes}
    assert lanes == {
        (target, f"transformersjs:web:chrome@{version}") for target in ("onnx-fp32", "onnx-fp16")
        for version in ("2.17", "4")
    }  # fmt: skip
    for lane in proof.report.lanes:
        assert [row.client.tokens_equal for row in lane.rows] == [True, True, False]


def test_a_browser_that_lies_is_refused(tiny_export: commands.Exported, tiny: Path, tmp_path: Path) -> None:
    """A page is whoever has the address: what it sends is measured as any runtime's answer is."""
    needs_client("node@4")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS), "utf-8")

    def lie(address: str) -> None:
        base = address.partition("js/")[0]

        def page() -> None:
            body = json.dumps({"page": "1", "agent": AGENTS["firefox"], "webgpu": False}).encode()
            urllib.request.urlopen(base + "hello", body, timeout=10).close()
            while True:
                with urllib.request.urlopen(base + "next?page=1", timeout=60) as response:
                    request = json.load(response) if response.status == 200 else None
                if request is None:
                    continue
                answer = json.dumps({"id": request["id"], "version": "4.3.1", "files": ["onnx/model.onnx"]}).encode()
                urllib.request.urlopen(base + "answer?page=1", answer, timeout=10).close()
                if request["op"] == "end":
                    return

        Thread(target=page, daemon=True).start()

    proof = check_parity(
        tiny_export.folder, str(tiny), texts=texts, report_path=tmp_path / "report.json",
        browsers=Browsers(lie, versions=("4",)),
    )  # fmt: skip
    assert not proof.verdict.passed
    assert {lane.failed.partition("fetched")[2] for lane in proof.report.lanes} == {
        " no model, not onnx/model.onnx", " no model, not onnx/model_fp16.onnx",
    }  # fmt: skip


def test_the_address_is_of_this_machine_and_holds_a_token(server: Loopback) -> None:
    address = page_address(server)
    assert address.startswith("http://127.0.0.1:")
    assert server.token in address
    assert len(server.token) >= 20
