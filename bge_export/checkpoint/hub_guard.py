"""Limits a Hub's answers while files are fetched from it: names in the cache, bytes and time.

huggingface_hub joins the answer's ETag and commit into paths of its cache, and limits neither the bytes nor the time of
a transfer. The limits are set in the HTTP client through which its requests pass, by way of the library's public client
factory. Requests of other code in the same process are not affected.
"""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from threading import Thread
from typing import TYPE_CHECKING, TypeVar, cast

from bge_export.checkpoint.hub_transfer import OTHER_BYTES, Transfer
from bge_export.errors import HubError

if TYPE_CHECKING:
    from httpx2 import Client, Request, Response

T = TypeVar("T")

LONGEST_WAIT_SECONDS = 300
"""The longest sleep that the Hub may request from the library."""
POLL_SECONDS = 0.2
STOP_SECONDS = 3.0
"""How long a stopped transfer may take to remove its temporary file."""
ETAG = re.compile(r'(?:W/)?"?(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{64})"?')
COMMIT = re.compile(r"[0-9a-f]{40}")
WAITS = {"retry-after": re.compile(r"\s*(\d+)"), "ratelimit": re.compile(r"t=(\d+)")}

_current: ContextVar[Transfer | None] = ContextVar("transfer", default=None)


def run(transfer: Transfer, call: Callable[[], T], seconds: float | None = None) -> T:
    """Return the result of `call`; its requests obey the limits of `transfer`.

    Args:
        transfer: the limits.
        call: calls huggingface_hub.
        seconds: timeout of the whole call, including name resolution, which no HTTP client limits.

    Raises:
        HubError: a limit was exceeded.
        TimeoutError: the call took longer than `seconds`.
    """
    _guard_clients()
    outcome: Future[T] = Future()

    def work() -> None:
        _current.set(transfer)
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            outcome.set_exception(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        return _await(outcome, transfer, seconds)
    except BaseException:  # an interrupt too: the transfer must not go on behind it
        if not outcome.done():
            transfer.stop()
            thread.join(STOP_SECONDS if seconds is None else 0)
        raise


def _await(outcome: "Future[T]", transfer: Transfer, seconds: float | None) -> T:
    deadline = None if seconds is None else time.monotonic() + seconds

    while not outcome.done():
        try:
            return outcome.result(timeout=POLL_SECONDS)
        except TimeoutError:
            # A TimeoutError of the call itself looks like ours; it is raised by the last line.
            if outcome.done():
                break

        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
        if transfer.is_stalled():
            raise transfer.stall_error()

    return outcome.result()


def _guard_clients() -> None:
    """Make every HTTP client that huggingface_hub creates from now on obey the current transfer's limits."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    # The user's own factory is kept: it may set a proxy or certificates. It has no public name.
    inner = _http._GLOBAL_CLIENT_FACTORY
    if getattr(inner, "guarded", False):
        return

    def guarded() -> "Client":
        client = inner()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks.get("request", ()), _before],
            "response": [_after, *hooks.get("response", ())],
        }
        return client

    guarded.guarded = True  # type: ignore[attr-defined]  # a mark that prevents wrapping it twice
    set_client_factory(guarded)


def _before(request: "Request") -> None:
    transfer = _current.get()
    if transfer is None:
        return

    # A compressed answer can be small and unpack to any size.
    request.headers["Accept-Encoding"] = "identity"
    transfer.begin()


def _after(response: "Response") -> None:
    transfer = _current.get()
    if transfer is None:
        return

    try:
        _refuse_names(response, transfer)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise HubError(
                f"{transfer.what}: the Hub sends packed bytes where plain ones were asked for. "
                "Check HF_ENDPOINT and the proxy."
            )
    except HubError:
        response.close()
        raise

    _limit_waiting(response)
    _limit_body(response, transfer)


def _refuse_names(response: "Response", transfer: Transfer) -> None:
    """Raise HubError if a value that huggingface_hub uses as a name in its cache could lead out of it."""
    commit = response.headers.get("X-Repo-Commit")
    if commit is not None and not COMMIT.fullmatch(commit):
        raise _no_digest(transfer, "commit", commit)

    if response.request.method != "HEAD" or response.status_code >= 400:
        return

    linked, plain = response.headers.get("X-Linked-ETag"), response.headers.get("ETag")
    if linked is not None and not ETAG.fullmatch(linked):
        raise _no_digest(transfer, "ETag", linked)

    if plain is None or ETAG.fullmatch(plain):
        return
    if linked is None and not response.is_redirect:
        raise _no_digest(transfer, "ETag", plain)

    # A redirect from one name of a model to another has its own ETag, which must not count.
    del response.headers["ETag"]


def _no_digest(transfer: Transfer, what: str, value: str) -> HubError:
    return HubError(
        f"{transfer.what}: the Hub gives the {what} {value[:80]!r}, which is not 40 or 64 hexadecimal digits, so "
        "nothing was fetched. A proxy or mirror answers in its place: check HF_ENDPOINT."
    )


def _limit_waiting(response: "Response") -> None:
    """Remove a header that requests too long a wait; the library then chooses the wait itself."""
    for name, pattern in WAITS.items():
        match = pattern.search(response.headers.get(name, ""))
        if match is not None and (len(match[1]) > 9 or int(match[1]) > LONGEST_WAIT_SECONDS):
            del response.headers[name]


def _limit_body(response: "Response", transfer: Transfer) -> None:
    """Count the bytes of an answer while they are read."""
    from httpx2 import SyncByteStream

    is_file = response.status_code in (200, 206)
    start = re.match(r"bytes=(\d+)-", response.request.headers.get("Range", ""))
    # A resumed transfer brings only the rest of the file.
    left = transfer.most_bytes - (int(start[1]) if start is not None and response.status_code == 206 else 0)
    most = left if is_file else OTHER_BYTES

    stream = cast(SyncByteStream, response.stream)  # the client is synchronous

    class Counted(SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            received = 0
            for chunk in stream:
                received += len(chunk)
                transfer.receive(len(chunk))
                if received > most:
                    raise transfer.size_error()
                yield chunk

        def close(self) -> None:
            transfer.end()
            stream.close()

    transfer.watch(response)
    response.stream = Counted()
