"""Headless Chromium on a page of ours, with a profile of its own that is gone afterwards."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from bge_export.javascript.packages import find_chromium
from bge_export.javascript.server import Loopback, PageLink

FLAGS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--no-default-browser-check", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage",
)  # fmt: skip
"""No sandbox, because containers run as root; the page is ours and fetches nothing from elsewhere."""

WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
"""Without these, headless Chromium has no adapter. SwiftShader computes on the processor what a GPU would."""


class ChromiumLink(PageLink):
    """A page in Chromium."""

    def __init__(self, loopback: Loopback, page: str, *, webgpu: bool) -> None:
        """Start the browser on a page below the server's address.

        Raises:
            DeviceUnavailable: there is no Chromium.
        """
        super().__init__(loopback)
        self._profile = tempfile.TemporaryDirectory(prefix="bge_export-", ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - `close` does
        flags = (*FLAGS, *(WEBGPU if webgpu else ("--disable-gpu",)), f"--user-data-dir={self._profile.name}")
        self._process = subprocess.Popen(  # noqa: S603 - a fixed command
            [find_chromium(), *flags, loopback.address + page],
            cwd=Path(self._profile.name), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
            start_new_session=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Return the number of the browser's process."""
        return self._process.pid

    def ended(self) -> str | None:
        """Return the browser's last words once it has ended."""
        if self._process.poll() is None:
            return None
        self._errors.seek(0)
        tail = self._errors.read()[-800:].strip()
        return f"Chromium ended by itself with status {self._process.returncode}: {tail or 'it said nothing'}"

    def close(self) -> None:
        """End the browser with all of its processes."""
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait(20)
        self._errors.close()
        self._profile.cleanup()
