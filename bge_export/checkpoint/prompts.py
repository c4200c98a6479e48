"""The prompts of a checkpoint: what its files declare, else what its authors publish for the model, else what is given.

The checkpoints of the BGE family declare no prompts, and readers of the folder then embed queries without the
instruction that they were trained with. The authors publish it in the models' cards. A model is taken for one of theirs
only by its own name; what merely descends from one may have been trained otherwise, so its user is told and decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.contracts import PromptOrigin
from bge_export.errors import CheckpointError
from bge_export.files.json_files import positive_integer

AUTHORS = "BAAI"

INSTRUCTIONS: Mapping[str, str] = {
    "en": "Represent this sentence for searching relevant passages: ",
    "zh": "为这个句子生成表示以用于检索相关文章：",
}
"""Language -> the instruction before queries; documents have none. The English one ends in a space."""

VOCABULARY: Mapping[str, int] = {"en": 30522, "zh": 21128}
"""Language -> the number of tokens of its models."""

SHAPES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("small", "en"): (384, 12),
    ("base", "en"): (768, 12),
    ("large", "en"): (1024, 24),
    ("small", "zh"): (512, 4),
    ("base", "zh"): (768, 12),
    ("large", "zh"): (1024, 24),
}
"""(size, language) -> D and the number of layers."""


@dataclass(frozen=True)
class Model:
    """A model of the family: the language of its texts, its width D, its layers, and its number of tokens."""

    language: str
    width: int
    layers: int
    tokens: int


MODELS: Mapping[str, Model] = {
    f"bge-{size}-{language}{version}": Model(language, *shape, VOCABULARY[language])
    for (size, language), shape in SHAPES.items()
    for version in ("", "-v1.5")
}
"""Name -> model, for each whose authors publish an instruction."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of a checkpoint.

    Attributes:
        texts: `query` and `document` -> the instruction before such texts; empty if there is none.
        origin: where they come from.
        notes: what the user should know of them, one sentence each.
    """

    texts: Mapping[str, str]
    origin: PromptOrigin
    notes: tuple[str, ...] = ()


def choose_prompts(
    path: Path, declared: Mapping[str, str], config: Mapping[str, object], name: str, given: str | None
) -> Prompts:
    """Return the prompts of a checkpoint.

    Args:
        path: the file that would declare them.
        declared: the prompts that it declares.
        config: the content of `config.json`.
        name: the checkpoint's Hub id, or the name of its folder.
        given: the instruction before queries that the user gives, "" for none; None if the user gives nothing.

    Raises:
        CheckpointError: the user gives another instruction than the checkpoint declares.
    """
    if given is not None and declared and given != declared["query"]:
        raise CheckpointError(
            f"{path} declares the query prompt {declared['query']!r}, but {given!r} was given. "
            "Leave --query-prefix out, or correct the file."
        )

    if declared:
        return Prompts(declared, "checkpoint")
    if given is not None:
        return Prompts(_queries(given) if given else {}, "given")

    published = published_instruction(name, config)
    if published is not None:
        note = (
            f"Queries get the instruction {published!r}: the authors of {_own(name)} publish it, its files leave it "
            "out. Refuse it with --query-prefix ''."
        )
        return Prompts(_queries(published), "published", (note,))

    return Prompts({}, "checkpoint", _offers(name, config))


def published_instruction(name: str, config: Mapping[str, object]) -> str | None:
    """Return the instruction that its authors publish for a model; None unless it is one of theirs.

    Args:
        name: its Hub id, `BAAI/bge-small-en`, or the name of its folder, `bge-small-en`. A repository of somebody else
            is not theirs, whatever its name.
        config: the content of its `config.json`; a model of another size only has the name.
    """
    model = MODELS.get(_own(name))
    return INSTRUCTIONS[model.language] if model is not None and _fits(config, model) else None


def _own(name: str) -> str:
    """Return a model's name without its authors."""
    return name.removeprefix(f"{AUTHORS}/")


def _offers(name: str, config: Mapping[str, object]) -> tuple[str, ...]:
    """Return a sentence about the instruction of the model that a checkpoint seems to descend from; else nothing."""
    for origin, where in ((str(config.get("_name_or_path", "")), "config.json names"), (name, "its name is that of")):
        # A path of a download: …/sentence_transformers/BAAI_bge-small-en/
        parent = origin.rstrip("/").rpartition("/")[2].removeprefix(f"{AUTHORS}_")
        instruction = published_instruction(parent, config)
        if instruction is not None:
            return (
                f"{name} declares no query prompt; {where} {parent}, whose authors publish {instruction!r}. If it was "
                f"trained with that, add --query-prefix {instruction!r}; if not, --query-prefix ''.",
            )

    return ()


def _fits(config: Mapping[str, object], model: Model) -> bool:
    """Return whether a configuration has the sizes of a model; tokens may have been added."""
    tokens = positive_integer(config.get("vocab_size")) or 0
    sizes = (config.get("hidden_size"), config.get("num_hidden_layers"))
    return sizes == (model.width, model.layers) and tokens >= model.tokens


def _queries(instruction: str) -> dict[str, str]:
    """Return the prompts of a model whose queries alone have an instruction."""
    return {"query": instruction, "document": ""}
