"""Checks that a folder's JSON files and model card lead a client to the same vectors as the checkpoint."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bge_export.checkpoint.head_files import read_declarations
from bge_export.compatibility.findings import Finding
from bge_export.compatibility.targets import EVERY, TargetFacts
from bge_export.contracts import LAST_HIDDEN_STATE, LOGITS
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer, read_object, read_object_if_there
from bge_export.files.regular import SETTINGS_BYTES, TOKENIZER_BYTES, read_regular

READ = ("config.json", "tokenizer.json", "tokenizer_config.json")
UNBOUNDED = 1_000_000
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
POOLING = re.compile(r"pooling:\s*['\"](\w+)['\"]")
OLD = re.compile(r"transformers@2\.(\d+)")
FIRST_CLS = 11
"""Transformers.js supports CLS pooling from 2.11 on."""


def client_config(root: Path) -> dict[str, object]:
    """Return `transformers.js_config` of a folder, empty if there is none."""
    try:
        found = read_object_if_there(root / "config.json").get("transformers.js_config")
    except CheckpointError:  # `check_folder` reports it
        return {}
    return found if isinstance(found, dict) else {}


def client_output(root: Path) -> str:
    """Return the output that the pipeline of a folder reads: a reranker's logits, else the token states."""
    try:
        names = read_object_if_there(root / "config.json").get("architectures")
    except CheckpointError:  # `check_folder` reports it
        return LAST_HIDDEN_STATE

    scores = isinstance(names, list) and any(str(name).endswith("ForSequenceClassification") for name in names)
    return LOGITS if scores else LAST_HIDDEN_STATE


def check_folder(root: Path, facts: TargetFacts) -> list[Finding]:
    """Return every reason why the folder's small files mislead the client or the readers of its model card."""
    findings: list[Finding] = []
    objects: dict[str, dict[str, Any]] = {}

    for name in READ:
        try:
            objects[name] = read_object(root / name, TOKENIZER_BYTES)
        except CheckpointError as error:
            findings.append(Finding("json", str(error), f"{name}, which every client reads"))

    findings += _config(objects.get("config.json", {"model_type": "?"}))
    if "tokenizer_config.json" in objects:
        findings += _settings(objects["tokenizer_config.json"], objects.get("config.json", {}), facts)
    if "tokenizer.json" in objects:
        length = objects.get("tokenizer_config.json", {}).get("model_max_length")
        findings += _tokenizer(objects["tokenizer.json"], length)
    return [*findings, *_card(root)]


def _config(config: dict[str, Any]) -> Iterator[Finding]:
    if not config.get("model_type"):
        yield Finding("json", "config.json without model_type", "it: 2.5.0 does not load the model otherwise")

    own = config.get("transformers.js_config")
    dtype = own.get("dtype") if isinstance(own, dict) else None
    for value in dtype.values() if isinstance(dtype, dict) else [dtype]:
        if value is not None and not (isinstance(value, str) and value in EVERY | {"auto"}):
            got = f"transformers.js_config.dtype {value!r}, which version 4 silently takes for fp32"
            yield Finding("json", got, f"one of {', '.join(sorted(EVERY))}")


def _settings(settings: dict[str, Any], config: dict[str, Any], facts: TargetFacts) -> Iterator[Finding]:
    """Yield errors in `tokenizer_config.json`: clients truncate texts at its `model_max_length` and nowhere else."""
    length = positive_integer(settings.get("model_max_length"))
    positions = positive_integer(config.get("max_position_embeddings"))
    if length is None or length > UNBOUNDED or (positions is not None and length > positions):
        got = f"tokenizer_config.json with model_max_length {settings.get('model_max_length')!r}"
        yield Finding("json", got, f"at most {positions or 'the positions of the model'}: longer texts fail otherwise")

    declared = settings.get("tokenizer_class")
    allowed = facts.tokenizer_classes
    if allowed is not None and str(declared).removesuffix("Fast") not in allowed:
        got = f"tokenizer_config.json with tokenizer_class {declared!r}"
        yield Finding("json", got, f"one of {', '.join(sorted(allowed))}: version 2 knows no other")


def _tokenizer(tokenizer: dict[str, Any], length: object) -> Iterator[Finding]:
    """Yield what readers of `tokenizer.json` do to a text, and other clients do not.

    Args:
        tokenizer: the content of the file.
        length: the longest input in tokens, at which all others truncate too.
    """
    others = "readers that apply it give other vectors than those that do not"
    if tokenizer.get("padding") is not None:
        yield Finding("tokenizer", "tokenizer.json with padding baked in", f"padding: null; {others}")

    truncation = tokenizer.get("truncation")
    if truncation is None:
        return

    side = truncation.get("direction", "Right") if isinstance(truncation, dict) else None
    if not isinstance(truncation, dict) or truncation.get("max_length") != length or side != "Right":
        needed = f"truncation: null, or on the right at {length} tokens, the longest input; {others}"
        yield Finding("tokenizer", "tokenizer.json with another truncation baked in", needed)


def _card(root: Path) -> Iterator[Finding]:
    """Yield examples in the model card whose pooling differs from the folder's, or needs a newer client."""
    card = root / "README.md"
    if not card.is_file():
        return

    try:
        promised = read_declarations(root).pooling
    except CheckpointError as error:
        yield Finding("json", str(error), "pooling files that can be read")
        return

    try:
        text = read_regular(card, SETTINGS_BYTES).decode("utf-8", "replace")
    except OSError as error:
        yield Finding("card", f"README.md, which cannot be read: {error.strerror}", "a card that can be read")
        return

    for snippet in FENCE.findall(text):
        for shown in POOLING.findall(snippet):
            if promised is not None and shown not in ("none", {"last": "last_token"}.get(promised, promised)):
                yield Finding("card", f"an example in README.md with pooling: '{shown}'", f"pooling: '{promised}'")
            if shown == "cls" and any(int(minor) < FIRST_CLS for minor in OLD.findall(snippet)):
                yield Finding(
                    "card", "an example in README.md with CLS pooling in a version before 2.11", "2.11 or newer"
                )
