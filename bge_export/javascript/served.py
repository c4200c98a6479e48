"""Browsers that people open: each visitor to the served page is a runtime that must pass the same checks as others."""

import queue
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bge_export.contracts import Artifact, Session
from bge_export.errors import ClientError, DeviceUnavailable
from bge_export.javascript.clients import CLIENTS
from bge_export.javascript.opening import open_web, opening_request, refuse_other_file
from bge_export.javascript.packages import JS, packages_folder
from bge_export.javascript.server import Loopback, PageLink
from bge_export.javascript.session import ClientsSession

BROWSERS = (
    ("edge", re.compile(r"\bEdg(?:e|A|iOS)?/")),
    ("opera", re.compile(r"\bOPR/")),
    ("firefox", re.compile(r"\b(?:Firefox|FxiOS)/")),
    ("chrome", re.compile(r"(?:\b|Headless)(?:Chrome|CriOS|Chromium)/")),
    ("safari", re.compile(r"\bSafari/")),
)
"""Browser names by user agent, matched in this order: all but Firefox also contain Safari."""

ARRIVAL_SECONDS = 3600.0


@dataclass(frozen=True)
class Visitor:
    """A browser that opened the page: its name, its page, and whether it has a WebGPU adapter."""

    browser: str
    page: str
    webgpu: bool


def serve(artifacts: Sequence[Artifact], host: str) -> Loopback:
    """Serve a folder's artifacts, the clients and the page.

    Raises:
        DeviceUnavailable: the clients are not installed.
        MeasurementError: the server cannot listen on the address.
    """
    packages = packages_folder()
    folders: dict[str, Path] = {"models/model": artifacts[0].root, "js": JS}
    return Loopback(folders | {f"lib/{name}": packages / client.package for name, client in CLIENTS.items()}, host)


def page_address(server: Loopback) -> str:
    """Return the address that a browser must open."""
    return f"{server.address}js/page.html?served"


def visitors(server: Loopback, wait_for: Sequence[str], seconds: float = ARRIVAL_SECONDS) -> Iterator[Visitor]:
    """Yield each browser that arrives, until all of `wait_for` have arrived; without names, stop after the first.

    Raises:
        ClientError: a browser did not arrive in time.
    """
    missing = set(wait_for)
    while True:
        try:
            greeting = server.greetings.get(timeout=seconds)
        except queue.Empty:
            named = ", ".join(sorted(missing)) or "any browser"
            raise ClientError(f"{named} did not open the page within {seconds:g} s") from None

        browser = browser_name(str(greeting.get("agent")))
        yield Visitor(browser, str(greeting["page"]), greeting.get("webgpu") is True)

        missing.discard(browser)
        if not missing:
            return


def browser_name(agent: str) -> str:
    """Return the name of a browser from its user agent."""
    return next((name for name, sign in BROWSERS if sign.search(agent)), "unknown")


class ServedBrowser:
    """One visitor as a runtime; each version on wasm or WebGPU is a device: `web:firefox@4`, `webgpu:chrome@4`."""

    name = "transformersjs"
    formats = frozenset({"onnx"})
    library = "bge-export"
    extra = "all"

    def __init__(self, server: Loopback, visitor: Visitor) -> None:
        """Wrap a visitor of a server."""
        self.server = server
        self.visitor = visitor
        self.known = tuple(self.devices())

    def devices(self) -> Mapping[str, str | None]:
        """Return the devices of this browser; WebGPU needs an adapter and version 3 or newer."""
        web = [f"web:{self.visitor.browser}@{name}" for name in CLIENTS]
        gpu = [f"webgpu:{self.visitor.browser}@{name}" for name, client in CLIENTS.items() if client.major > 2]
        return dict.fromkeys([*web, *(gpu if self.visitor.webgpu else ())])

    def reads(self, artifact: Artifact, device: str) -> bool:
        """Return whether the client version can name the artifact's file."""
        return CLIENTS[device.partition("@")[2]].options(artifact.model) is not None

    def open(self, artifact: Artifact, device: str, threads: int) -> Session:
        """Load the artifact in a fresh page of this browser.

        Raises:
            ArtifactError: the page fetched another file.
            ClientError: the page failed or is gone.
            DeviceUnavailable: this browser has no such device.
        """
        if device not in self.devices():
            raise DeviceUnavailable(f"{self.visitor.browser} has no {device!r}")

        client = CLIENTS[device.partition("@")[2]]

        # A fresh page loads the library anew, and only its own fetches are recorded.
        link = PageLink(self.server, self.visitor.page)
        link.ask("reload")
        self.server.served.clear()

        package = packages_folder() / client.package
        environment = "webgpu" if device.startswith("webgpu") else "chromium"
        answer = open_web(link, environment, client, self.server, package, opening_request(client, artifact, threads))
        refuse_other_file(artifact, self.server.served)

        facts = {"transformers.js": str(answer["version"]), "environment": device, "loaded": artifact.model}
        return ClientsSession(link, artifact, client, facts, ExitStack())
