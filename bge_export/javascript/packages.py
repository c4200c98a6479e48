"""The clients' npm packages: pinned by a lock file in this package, installed by one command into a cache folder.

Nothing is installed implicitly. Install scripts are not run: those of onnxruntime-node and sharp would download more.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from bge_export.errors import DeviceUnavailable, MeasurementError
from bge_export.files.cache import cache_folder

JS = Path(__file__).resolve().parent / "js"
"""The JavaScript files of this package."""

LOCK = ("package.json", "package-lock.json")
COMMAND = "bge-export setup-js"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
INSTALL_SECONDS = 1200


def clients_folder() -> Path:
    """Return the installation folder of this lock file's clients; another lock file gets another folder."""
    lock = hashlib.sha256(b"".join((JS / name).read_bytes() for name in LOCK)).hexdigest()
    return cache_folder() / f"clients-{lock[:12]}"


def packages_folder() -> Path:
    """Return the installed `node_modules`.

    Raises:
        DeviceUnavailable: the clients are not installed; the message names the command.
    """
    folder = clients_folder() / "node_modules"
    if not folder.is_dir():
        raise DeviceUnavailable(f"the JavaScript clients are not installed. Install them (1.2 GB) with: {COMMAND}")
    return folder


def install_clients() -> Path:
    """Run `npm ci --ignore-scripts` in the cache folder, unless that was done before; return the folder.

    Raises:
        DeviceUnavailable: npm is not installed.
        MeasurementError: npm failed.
    """
    folder = clients_folder()
    if folder.is_dir():
        return folder

    npm = shutil.which("npm")
    if npm is None:
        raise DeviceUnavailable("npm is not on the PATH. Install Node 20 or newer, which brings it.")

    # Install beside the folder and rename, so that an interrupted install leaves no half-filled folder.
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        staging.mkdir(parents=True)
        for name in LOCK:
            shutil.copyfile(JS / name, staging / name)

        done = subprocess.run(  # noqa: S603 - a fixed command
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=staging,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise MeasurementError(f"npm ci failed: {done.stderr.strip()[-1000:]} Nothing was left behind.")

        staging.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"npm ci took longer than {INSTALL_SECONDS} s. Nothing was left behind.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def find_node() -> Path:
    """Return the path of the Node executable.

    Raises:
        DeviceUnavailable: Node is not installed.
    """
    return _found("node", "Install Node 20 or newer.")


def find_deno() -> Path:
    """Return the path of the Deno executable: the pinned one installed with the clients, else one on the PATH.

    Raises:
        DeviceUnavailable: Deno is not installed.
    """
    own = sorted(packages_folder().glob("@deno/*/deno*"))
    return own[0] if own else _found("deno", f"Install it, or the pinned one with: {COMMAND}")


def find_chromium() -> Path:
    """Return the path of the Chromium or Chrome executable.

    Raises:
        DeviceUnavailable: neither is installed.
    """
    for name in CHROMIUM:
        if found := shutil.which(name):
            return Path(found)
    raise DeviceUnavailable(f"no {' and no '.join(CHROMIUM)} is on the PATH. Install Chromium.")


def _found(name: str, advice: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise DeviceUnavailable(f"{name} is not on the PATH. {advice}")
    return Path(found)
