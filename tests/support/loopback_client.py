"""A page of the loopback server, in Python: it fetches its requests and posts its answers."""

import json
import urllib.error
import urllib.request
from threading import Thread

from bge_export.javascript.server import Loopback


def status(address: str, data: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(address, data, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def play(server: Loopback, **answer: object) -> None:
    """Be a page: take one request and answer it."""

    def page() -> None:
        with urllib.request.urlopen(server.address + "next") as response:
            request = json.load(response)
        status(server.address + "answer", json.dumps({"id": request["id"], **answer}).encode())

    Thread(target=page).start()
