"""The files of a checkpoint from the Hugging Face Hub: only those that decide an embedding, each checked by its digest.

How huggingface_hub 2.4 behaves decides the shape of this module. Its requests about a model have no time limit, so the
first contact runs under ours. A transfer that ends early is resumed by the library, one that is reset is not, so we
begin it again. Wrong bytes of the right number go unnoticed, so every file is compared with the Hub's digest. Names of
branches are written to the cache last, so what a name points to in the cache is complete.
"""

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from bge_export.digest import CHUNK_BYTES
from bge_export.errors import CheckpointError, HubError, MissingLibrary
from bge_export.hub_errors import HubUnreachableError, explain, is_worth_repeating
from bge_export.pooling_files import MODULES, PROMPTS, TRANSFORMER_SETTINGS
from bge_export.tokenizer_files import TOKENIZER_FILES
from bge_export.weight_files import INDEX, SINGLE, entry_file

T = TypeVar("T")

STEP_SECONDS = 5.0
"""How long the first request may wait for a connection, and then for its answer."""
CONTACT_SECONDS = 6.0
"""How long the first request may take in all, name resolution included, which no HTTP client limits."""
ATTEMPTS = 3
ROOT_FILES = frozenset({"config.json", MODULES, PROMPTS, *TRANSFORMER_SETTINGS, *TOKENIZER_FILES})
MODULE_CONFIG = re.compile(r"\d+_\w+/config\.json", re.ASCII)
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class _Listing:
    """A commit, and file -> its digest: sha256 of large files, git's blob hash of small ones, None where not said."""

    commit: str
    digests: Mapping[str, str | None]


def fetch(model_id: str, revision: str | None) -> tuple[Path, str]:
    """Return the folder that holds a model's checkpoint files, and its commit.

    Where the Hub cannot be reached and the files are in its cache already, the cache is used.

    Raises:
        CheckpointError: there is no such model or revision, or it has no weights in the safetensors format.
        HubError: the Hub could not be reached, refused, or gave bytes that are not what it promised.
        MissingLibrary: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub  # noqa: F401 - only to say early what is missing
    except ImportError as error:
        raise MissingLibrary("huggingface_hub", "export", "fetching a model from the Hub") from error
    if revision is not None and not REVISION.fullmatch(revision):
        raise CheckpointError(f"{revision!r} is no revision. Give a branch, a tag or a commit of {model_id}.")
    try:
        listing = _list_files(model_id, revision)
    except HubUnreachableError as error:
        return _from_cache(model_id, revision, error)
    with _progress_on_terminals_only():
        for name in _wanted(listing.digests, model_id):
            path = _download(model_id, name, listing.commit)
            _verify(path, model_id, name, listing.digests[name])
        # Asking by the branch's name makes the library note which commit it was, for later runs without network.
        _download(model_id, "config.json", revision or "main")
        config = _download(model_id, "config.json", listing.commit)
    return config.parent, listing.commit


def _list_files(model_id: str, revision: str | None) -> _Listing:
    from huggingface_hub import HfApi

    def ask() -> _Listing:
        info = HfApi().model_info(model_id, revision=revision or "main", files_metadata=True, timeout=STEP_SECONDS)
        files = info.siblings or []
        return _Listing(str(info.sha), {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id for f in files})

    try:
        return _within(CONTACT_SECONDS, ask)
    except Exception as error:
        raise explain(error, model_id, revision) from error


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise TimeoutError and leave it to its own end."""
    outcome: Future[T] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed to the caller
            outcome.set_exception(error)

    Thread(target=work, daemon=True).start()
    return outcome.result(timeout=seconds)


def _wanted(names: Mapping[str, object], model_id: str) -> list[str]:
    """Return the files to fetch, weights last, so that a folder that has them has everything."""
    if "config.json" not in names:
        raise CheckpointError(f"{model_id} has no config.json on the Hub: it is no transformers model. Choose another.")
    entry = entry_file(names, model_id)
    small = sorted(name for name in names if name in ROOT_FILES or MODULE_CONFIG.fullmatch(name))
    shards = sorted(name for name in names if SHARD.fullmatch(name)) if entry == INDEX else []
    return [*small, entry, *shards]


def _download(model_id: str, name: str, revision: str) -> Path:
    from huggingface_hub import hf_hub_download

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return Path(hf_hub_download(model_id, name, revision=revision))
        except Exception as error:
            if attempt == ATTEMPTS or not is_worth_repeating(error):
                raise explain(error, model_id, revision, name) from error
        time.sleep(attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _from_cache(model_id: str, revision: str | None, reason: HubUnreachableError) -> tuple[Path, str]:
    """Return the model's folder in the cache, its bytes checked, or raise why the Hub could not be reached."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    folder = Path(config).parent if isinstance(config, str) else None
    if folder is None or not any((folder / name).is_file() for name in (SINGLE, INDEX)):
        raise reason
    names = {path.relative_to(folder).as_posix(): None for path in folder.rglob("*") if path.is_file()}
    for name in _wanted(names, model_id):
        _verify(folder / name, model_id, name, None)
    return folder, folder.name


def _verify(path: Path, model_id: str, name: str, promised: str | None) -> None:
    """Compare a file of the cache with its digest, and take it out of the cache where it differs."""
    # The cache names the bytes behind a link by the ETag, which on the Hub is the digest.
    named = path.readlink().name if path.is_symlink() else ""
    digest = promised or named
    if not DIGEST.fullmatch(digest):
        return
    found = _git_blob_sha1(path) if len(digest) == 40 else _sha256(path)
    if found == digest:
        return
    _remove(path)
    raise HubError(
        f"{model_id}: the bytes of {name} are not what the Hub promises (digest {digest[:12]}…, got {found[:12]}…). "
        "The file was taken out of the cache: run the command again. If it happens again, a proxy or mirror changes it."
    )


def _sha256(path: Path) -> str:
    return _hashed(path, "sha256", b"")


def _git_blob_sha1(path: Path) -> str:
    """Return the name git gives a file's content, which the Hub uses for files that are not in LFS."""
    return _hashed(path, "sha1", f"blob {path.stat().st_size}\0".encode())


def _hashed(path: Path, algorithm: str, start: bytes) -> str:
    digest = hashlib.new(algorithm, start, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _remove(link: Path) -> None:
    """Delete a file of the cache with everything its chain of links leads to."""
    while link.is_symlink():
        target = link.parent / link.readlink()
        link.unlink()
        link = target
    link.unlink(missing_ok=True)


@contextmanager
def _progress_on_terminals_only() -> Iterator[None]:
    """Keep the library's progress bars out of logs, unless the user's environment asks for them."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if on_terminal or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    with disable_progress_bars():
        yield
