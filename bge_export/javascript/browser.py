"""Runs one of this package's pages in headless Chromium, with a temporary profile that is deleted afterwards."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from bge_export.javascript.packages import find_chromium
from bge_export.javascript.server import Loopback, PageLink

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
)
"""No sandbox, because containers run as root; the page is ours and fetches nothing from other hosts."""

WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
"""Without these flags headless Chromium has no adapter. SwiftShader emulates a GPU on the CPU."""


class ChromiumLink(PageLink):
    """A page in a Chromium process that was started for it."""

    def __init__(self, loopback: Loopback, page: str, *, webgpu: bool) -> None:
        """Start the browser on a page below the server's address.

        Raises:
            DeviceUnavailable: Chromium is not installed.
        """
        super().__init__(loopback)
        self._profile = tempfile.TemporaryDirectory(prefix="bge_export-", ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see `close`

        flags = (*FLAGS, *(WEBGPU if webgpu else ("--disable-gpu",)), f"--user-data-dir={self._profile.name}")
        self._process = subprocess.Popen(  # noqa: S603 - a fixed command
            [find_chromium(), *flags, loopback.address + page],
            cwd=Path(self._profile.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Return the ID of the browser's process."""
        return self._process.pid

    def ended(self) -> str | None:
        """Return the end of the browser's error output if it has exited; None while it runs."""
        if self._process.poll() is None:
            return None

        self._errors.seek(0)
        tail = self._errors.read()[-800:].strip()
        return f"Chromium ended by itself with status {self._process.returncode}: {tail or 'it said nothing'}"

    def close(self) -> None:
        """Kill the browser and its child processes, and delete the profile."""
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

        self._process.wait(20)
        self._errors.close()
        self._profile.cleanup()
