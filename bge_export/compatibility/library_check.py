"""Checks a folder against a library: which file it opens, and what it gets wrong without a word unless it is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bge_export.bundle.integrity import MANIFEST
from bge_export.bundle.manifest import read_manifest
from bge_export.checkpoint.head_files import read_declarations
from bge_export.checkpoint.pooling_files import PROMPTS, SentenceFiles
from bge_export.compatibility.findings import Advice, FileCheck, Finding
from bge_export.compatibility.following import library_advice, library_findings
from bge_export.compatibility.libraries import LibraryFacts
from bge_export.errors import CheckpointError
from bge_export.files.json_files import read_object, read_object_if_there
from bge_export.files.regular import TOKENIZER_BYTES

SUFFIXES = {".onnx", ".xml"}


def check_library(folder: Path, target: str, facts: LibraryFacts) -> list[FileCheck]:
    """Return the check of the folder and of each file that the library opens.

    A folder is refused where nothing mends it: no file of a known name, or a pooling that the library lacks.
    """
    opened = next((name for name in facts.files if (folder / name).is_file()), None)
    findings: list[Finding] = []
    advice: list[Advice] = []

    try:
        declared = read_declarations(folder)
        tokenizer = read_object(folder / "tokenizer.json", TOKENIZER_BYTES)
        settings = read_object_if_there(folder / "tokenizer_config.json")
        prompts = read_object_if_there(folder / PROMPTS).get("prompts")
    except CheckpointError as error:
        findings.append(Finding("json", str(error), "files that can be read"))
    else:
        findings += [*_lacking(declared, facts), *library_findings(folder, declared, facts), *_other_heads(folder)]
        advice += [*_vector(declared, facts), *library_advice(folder, declared, facts)]
        advice += _input(declared, facts, tokenizer, settings)
        advice += _prompt(prompts, facts)

    others = _others(folder, facts) if facts.other_file else []
    if opened is None and not others:
        findings.append(Finding("files", "no file that it opens", f"{' or '.join(facts.files)}"))
    if facts.remark:
        advice.append(Advice("remark", facts.remark, ""))

    whole = FileCheck(target, "", 0, tuple(findings), "refused" if findings else "fits", advice=tuple(advice))
    named = [(name, (Advice("files", "not opened unasked", _filled(facts.other_file, name)),)) for name in others]
    files = [*([(opened, ())] if opened else []), *((name, why) for name, why in named if name != opened)]
    return [
        whole,
        *(
            FileCheck(target, name, (folder / name).stat().st_size, (), "fits", advice=tuple(why))
            for name, why in files
        ),
    ]


def _others(folder: Path, facts: LibraryFacts) -> list[str]:
    """Return the other model files of the formats that the library opens."""
    suffixes = {Path(name).suffix for name in facts.files} & SUFFIXES
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix in suffixes)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _filled(setting: str, file: str) -> str:
    return setting.format(file=file, name=Path(file).name)


def _lacking(declared: SentenceFiles, facts: LibraryFacts) -> Iterator[Finding]:
    """Yield a pooling that no setting gives."""
    if facts.layers == "skipped" and declared.pooling is not None and declared.pooling not in facts.poolings:
        yield Finding("pooling", f"a folder that pools by {declared.pooling!r}", " or ".join(facts.poolings))


def _other_heads(folder: Path) -> Iterator[Finding]:
    """Yield the outputs of a folder that gives token weights or vectors of tokens, by its manifest if it has one."""
    if (folder / MANIFEST).is_file() and (spec := read_manifest(folder).spec).has_token_heads:
        got = f"a model that gives {', '.join(spec.to_spec().outputs)}"
        yield Finding("outputs", got, "the states or the one vector of a text, which such a library takes")


def _vector(declared: SentenceFiles, facts: LibraryFacts) -> Iterator[Advice]:
    """Yield what the library does to the states otherwise than the folder says."""
    pooling = declared.pooling
    if pooling in facts.poolings and facts.pooling not in ("folder", pooling) and facts.set_pooling:
        names = {"pooling": pooling, "POOLING": pooling.upper(), "Pooling": pooling.capitalize()}
        unasked = "it does not read the pooling" if facts.pooling == "states" else f"unasked it takes {facts.pooling!r}"
        yield Advice("pooling", f"{unasked}; the folder's is {pooling!r}", facts.set_pooling.format(**names))

    if declared.normalize and facts.norm == "asked":
        yield Advice("norm", "unasked it does not divide by the norm, as the folder does", facts.set_norm)
    if not declared.normalize and facts.norm == "always":
        yield Advice("norm", "it divides by the norm, which the folder does not", "compare by the cosine")


def _input(
    declared: SentenceFiles, facts: LibraryFacts, tokenizer: dict[str, Any], settings: dict[str, Any]
) -> Iterator[Advice]:
    """Yield what the library does to long texts, and to texts in a batch."""
    silent = facts.truncates == "asked" or (facts.truncates == "tokenizer" and tokenizer.get("truncation") is None)
    if silent and declared.max_seq_length is not None:
        fault = f"unasked it does not cut texts at the longest input, {declared.max_seq_length} tokens"
        yield Advice("length", fault, facts.set_length.format(tokens=declared.max_seq_length))

    if settings.get("padding_side") == "left" and declared.pooling == "cls":
        fault = (
            "tokenizer_config.json pads on the left, where the first token, which the folder pools, would be padding"
        )
        yield Advice("padding", fault, 'padding_side: "right"')


def _prompt(prompts: object, facts: LibraryFacts) -> Iterator[Advice]:
    """Yield how queries get the folder's prompt, if it has one."""
    query = prompts.get("query") if isinstance(prompts, dict) else None
    if isinstance(query, str) and query and facts.set_prompt:
        yield Advice("prompt", "queries get the folder's prompt only so", facts.set_prompt.format(prompt=query))
