"""Refuses tokenizer files that readers of `tokenizer.json` and readers of the settings would follow differently."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bge_export.contracts import Side
from bge_export.errors import CheckpointError

TOKENIZER: Final = "tokenizer.json"
SETTINGS = "tokenizer_config.json"

ADD_SPECIAL_TOKENS = frozenset(
    {
        "AlbertTokenizer",
        "BertTokenizer",
        "CamembertTokenizer",
        "DebertaV2Tokenizer",
        "DistilBertTokenizer",
        "ElectraTokenizer",
        "MPNetTokenizer",
        "RobertaTokenizer",
        "XLMRobertaTokenizer",
    }
)
"""Classes of transformers that put special tokens around every text, whatever `tokenizer.json` says."""

PAD_LEFT = frozenset({"CodeLlamaTokenizer", "CohereTokenizer", "GemmaTokenizer", "LlamaTokenizer", "XLNetTokenizer"})
"""Classes of transformers that pad on the left unless their settings say otherwise."""

NORMALIZER_SETTINGS: Mapping[str, str] = {
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Key of `tokenizer_config.json` -> field of a BertNormalizer; `do_lower_case` has its own check."""


def refuse_contradictions(
    root: Path, settings: Mapping[str, object], tokenizer: Mapping[str, object], lower_case: bool
) -> None:
    """Raise CheckpointError if the settings contradict `tokenizer.json`.

    Args:
        root: the folder.
        settings: `tokenizer_config.json`.
        tokenizer: `tokenizer.json`.
        lower_case: whether the sentence-transformers files lowercase texts.
    """
    path = root / TOKENIZER
    truncation = tokenizer.get("truncation")
    refuse_left_truncation(path, truncation.get("direction") if isinstance(truncation, dict) else None)
    _refuse_other_normalizer(root, settings, tokenizer.get("normalizer"))
    _refuse_without_special_tokens(path, settings, tokenizer.get("post_processor"))

    lowered = lowers(tokenizer.get("normalizer"))
    declared = settings.get("do_lower_case")
    if isinstance(declared, bool) and declared != lowered:
        raise CheckpointError(
            f"{root / SETTINGS} says do_lower_case: {str(declared).lower()}, but the normalizer of {TOKENIZER} "
            f"{'lowercases' if lowered else 'does not lowercase'}: readers of one file would get other embeddings than "
            "readers of the other. Correct one of them after the model's card."
        )

    if lower_case and not lowered:
        raise CheckpointError(
            f"{root}: the sentence-transformers settings lowercase texts (do_lower_case: true), {TOKENIZER} does not. "
            "Correct one of them after the model's card."
        )


def refuse_left_truncation(path: Path, side: object) -> None:
    """Raise CheckpointError if long texts lose their beginning: every client keeps the beginning."""
    if isinstance(side, str) and side.lower() == "left":
        raise CheckpointError(
            f"{path} truncates long texts on the left; runtimes and clients truncate on the right, and so would give "
            "other embeddings. Set the side to right, or choose another checkpoint."
        )


def padding_side(settings: Mapping[str, object], tokenizer: Mapping[str, object]) -> Side:
    """Return where transformers pads: as its settings say, else as `tokenizer.json` does, else as the class does."""
    padding = tokenizer.get("padding")
    direction = padding.get("direction") if isinstance(padding, dict) else None
    for side in (settings.get("padding_side"), direction):
        if isinstance(side, str):
            return "left" if side.lower() == "left" else "right"

    declared = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
    return "left" if declared in PAD_LEFT else "right"


def _refuse_other_normalizer(root: Path, settings: Mapping[str, object], normalizer: object) -> None:
    """Raise CheckpointError if the settings contradict a BertNormalizer: transformers builds its own from them."""
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return

    for setting, field in NORMALIZER_SETTINGS.items():
        if setting in settings and field in normalizer and settings[setting] != normalizer[field]:
            raise CheckpointError(
                f"{root / SETTINGS} says {setting}: {_json(settings[setting])}, the normalizer of {TOKENIZER} says "
                f"{field}: {_json(normalizer[field])}: readers of one file would get other embeddings than readers of "
                "the other. Correct one of them after the model's card."
            )


def _json(value: object) -> str:
    return json.dumps(value)[:80]


def _refuse_without_special_tokens(path: Path, settings: Mapping[str, object], processor: object) -> None:
    """Raise CheckpointError if `tokenizer.json` adds no special tokens while the tokenizer's class adds its own."""
    declared = str(settings.get("tokenizer_class", "")).removesuffix("Fast")
    if processor is None and declared in ADD_SPECIAL_TOKENS:
        raise CheckpointError(
            f"{path} has no post-processor, so it adds no special tokens, while transformers' {declared} puts them "
            "around every text: readers of the file would get other embeddings. Save the tokenizer again with "
            "transformers."
        )


def lowers(normalizer: object) -> bool:
    """Return whether a normalizer of `tokenizer.json`, or one of its parts, lowercases texts."""
    if not isinstance(normalizer, dict):
        return False

    parts = normalizer.get("normalizers")
    if isinstance(parts, list):
        return any(lowers(part) for part in parts)

    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True
