"""Fetches a checkpoint from the Hugging Face Hub: only files that affect an embedding, each verified by its digest.

The behaviour of huggingface_hub 2.4 determines the shape of this module. Its requests about a model have no timeout, so
the first contact runs under ours. It resumes a transfer that ends early but not one that is reset, so we start that
one again. It does not notice wrong bytes of the right length, so every file is compared with the Hub's digest. It
writes branch names to the cache last, so the files that a name points to in the cache are complete.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from bge_export.checkpoint.adapter_files import SETTINGS as ADAPTER
from bge_export.checkpoint.adapter_files import WEIGHTS as ADAPTER_WEIGHTS
from bge_export.checkpoint.hub_cache import refuse_foreign, verify
from bge_export.checkpoint.hub_errors import HubUnreachableError, explain
from bge_export.checkpoint.hub_files import ATTEMPTS, download, transfer_of
from bge_export.checkpoint.hub_listing import Listing, list_files
from bge_export.checkpoint.hub_settings import plain_transfers, progress_on_terminals_only
from bge_export.checkpoint.hub_transfer import Transfer
from bge_export.checkpoint.m3_files import LAYERS
from bge_export.checkpoint.pooling_files import MODULES, PROMPTS, TRANSFORMER_SETTINGS
from bge_export.checkpoint.tokenizer_files import TOKENIZER_FILES
from bge_export.checkpoint.unpickling import HEAD_PICKLES
from bge_export.checkpoint.weight_files import INDEX, PICKLE, PICKLE_INDEX, PICKLES, SINGLE, entry_file
from bge_export.errors import CheckpointError, MissingLibrary
from bge_export.files.regular import SETTINGS_BYTES, TOKENIZER_BYTES, WEIGHTS_BYTES

CONFIG = "config.json"
FIRST = (CONFIG, ADAPTER, MODULES)
"""Files of which every model has one: the first that is there stands for it in the cache."""

ROOT_FILES = frozenset({CONFIG, ADAPTER, MODULES, PROMPTS, *TRANSFORMER_SETTINGS, *TOKENIZER_FILES})
MODULE_CONFIG = re.compile(r"\d+_\w+/config\.json", re.ASCII)
MODULE_WEIGHTS = re.compile(r"\d+_\w+/model\.safetensors", re.ASCII)
MODULE_TOKENIZER = re.compile(r"\d+_\w+/tokenizer\.json", re.ASCII)
"""The tokenizer of a static embedding, which lies in the folder of its module."""

MODULE_PICKLE = re.compile(r"\d+_\w+/pytorch_model\.bin", re.ASCII)
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors|pytorch_model-\d+-of-\d+\.bin", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*", re.ASCII)


def fetch(model_id: str, revision: str | None, *, pickles: bool = False) -> tuple[Path, str]:
    """Return the folder that holds a model's checkpoint files, and its commit.

    If the Hub is unreachable and the local cache already holds the files, the cache is used. With `pickles`, weights
    that are only there as pickles are fetched too; nothing here loads them.

    Raises:
        CheckpointError: the model or revision does not exist, or has no weights in the safetensors format.
        HubError: the Hub is unreachable, refused the request, or returned other bytes than it promised.
        MissingLibrary: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub  # noqa: F401 - reports a missing library early
    except ImportError as error:
        raise MissingLibrary("huggingface_hub", "export", "fetching a model from the Hub") from error
    if revision is not None and not REVISION.fullmatch(revision):
        raise CheckpointError(f"{revision!r} is not a valid revision. Give a branch, a tag or a commit of {model_id}.")

    try:
        listing = _list_files(model_id, revision)
    except HubUnreachableError as error:
        return _from_cache(model_id, revision, error, pickles=pickles)

    names = _wanted(listing.digests, model_id, pickles=pickles)
    transfers = {name: transfer_of(model_id, name, listing, _most_bytes(name)) for name in names}

    with progress_on_terminals_only(), plain_transfers():
        for name in names:
            path = download(model_id, listing.commit, name, transfers[name])
            verify(path, model_id, name, listing.digests[name])

        # A request by branch name makes the library record its commit, for later runs without a network.
        first = next(name for name in FIRST if name in transfers)
        again = Transfer(f"{model_id}: {first}", transfers[first].most_bytes, ATTEMPTS)
        download(model_id, revision or "main", first, again)
        settings = download(model_id, listing.commit, first, again)

    refuse_foreign(settings.parent, model_id)
    return settings.parent, listing.commit


def _list_files(model_id: str, revision: str | None) -> Listing:
    try:
        return list_files(model_id, revision)
    except Exception as error:
        raise explain(error, model_id, revision) from error


def _most_bytes(name: str) -> int:
    """Return the size limit for a file, by its kind."""
    if name.endswith((".safetensors", *PICKLES)):
        return WEIGHTS_BYTES
    of_tokenizer = name in TOKENIZER_FILES or MODULE_TOKENIZER.fullmatch(name) is not None
    return TOKENIZER_BYTES if of_tokenizer or name == INDEX else SETTINGS_BYTES


def _wanted(names: Mapping[str, object], model_id: str, *, pickles: bool) -> list[str]:
    """Return the files to fetch, weights last, so that a folder with weights is complete."""
    small = sorted(name for name in names if name in ROOT_FILES or is_of_a_module(name))
    adapter = [ADAPTER_WEIGHTS] if {ADAPTER, ADAPTER_WEIGHTS} <= set(names) else []
    if adapter and CONFIG not in names:
        return [*small, *adapter]

    if _is_static(names):
        return [*small, *(name for name in (SINGLE,) if name in names)]

    if CONFIG not in names:
        raise CheckpointError(
            f"{model_id} has no config.json on the Hub: it is not a transformers model. Choose another."
        )

    entry = entry_file(names, model_id, pickles=pickles)

    # Heads that are only there as pickles are fetched in any case, and then refused by their names: without them the
    # encoder alone would pass for the whole model.
    layers = sorted(name for name in names if name in (*HEAD_PICKLES, *LAYERS))
    layers += sorted(name for name in names if pickles and MODULE_PICKLE.fullmatch(name))
    shards = sorted(name for name in names if SHARD.fullmatch(name)) if entry in (INDEX, PICKLE_INDEX) else []
    return [*small, *adapter, *layers, entry, *shards]


def _is_static(names: Collection[str]) -> bool:
    """Return whether the files are those of a static embedding.

    It needs no `config.json` and has no pooling, and its files may lie in the folder of its module.
    """
    if MODULES not in names:
        return False
    if any(MODULE_TOKENIZER.fullmatch(name) for name in names):
        return True
    return CONFIG not in names and SINGLE in names and not any(name.endswith("_Pooling/config.json") for name in names)


def is_of_a_module(name: str) -> bool:
    """Return whether a file is the configuration of a module, its weights or its tokenizer."""
    return any(one.fullmatch(name) for one in (MODULE_CONFIG, MODULE_WEIGHTS, MODULE_TOKENIZER))


def _from_cache(model_id: str, revision: str | None, reason: HubUnreachableError, *, pickles: bool) -> tuple[Path, str]:
    """Return the model's cache folder after verifying its bytes; raise `reason` if it holds no weights."""
    from huggingface_hub import try_to_load_from_cache

    entries = (PICKLE, PICKLE_INDEX) if pickles else ()
    known = (try_to_load_from_cache(model_id, name, revision=revision) for name in FIRST)
    folder = next((Path(path).parent for path in known if isinstance(path, str)), None)
    weights = (*entries, SINGLE, INDEX, ADAPTER_WEIGHTS)
    if folder is None or not (
        any((folder / name).is_file() for name in weights) or any(folder.glob(f"[0-9]*_*/{SINGLE}"))
    ):
        raise reason

    names = {path.relative_to(folder).as_posix(): None for path in folder.rglob("*") if path.is_file()}
    for name in _wanted(names, model_id, pickles=pickles):
        verify(folder / name, model_id, name, None)

    refuse_foreign(folder, model_id)
    return folder, folder.name
