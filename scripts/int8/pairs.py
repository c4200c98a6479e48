"""Positive pairs of the evaluation sets, and batches of them in which no text is another one's false negative."""

import csv
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENGLISH_STS = ("STS12", "STS13", "STS16", "STS17-en-en", "STSBenchmark")
SAME_MEANING = 4.0
"""Score, of 5, from which on two sentences of an STS set count as a positive pair."""

PER_SET = 1500
"""Pairs of one set in a mixture at most, so that no set is most of it."""


@dataclass(frozen=True)
class Pair:
    """Two texts that belong together; texts of other pairs of the same group would be false negatives."""

    first: str
    second: str
    group: str


def sts_pairs(folder: Path, sets: Sequence[str]) -> list[Pair]:
    """Return the pairs of sentences that people scored as equal in meaning."""
    pairs = []

    for name in sets:
        with (folder / name / "test.tsv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                first, second = row["sentence1"], row["sentence2"]

                if float(row["score"]) >= SAME_MEANING and first != second:
                    pairs.append(Pair(first, second, group=first))

    return pairs


def banking_pairs(folder: Path) -> list[Pair]:
    """Return pairs of questions to a bank that have one label, each question once."""
    texts: dict[str, list[str]] = defaultdict(list)
    for row in _json_lines(folder / "Banking77Classification/train.jsonl.gz"):
        texts[row["label"]].append(row["text"])

    return [
        Pair(first, second, group=label)
        for label in sorted(texts)
        for first, second in zip(texts[label][::2], texts[label][1::2], strict=False)
    ]


def scifact_pairs(folder: Path) -> list[Pair]:
    """Return claims, each with the abstract that it is about."""
    claims = {row["_id"]: row["text"] for row in _json_lines(folder / "SciFact/queries.jsonl")}
    documents = {row["_id"]: f"{row['title']} {row['text']}" for row in _json_lines(folder / "SciFact/corpus.jsonl.gz")}

    with (folder / "SciFact/qrels.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Pair(claims[row["query-id"]], documents[row["corpus-id"]], group=row["corpus-id"])
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def mixed_pairs(folder: Path) -> list[Pair]:
    """Return pairs of all English sets."""
    sets = (sts_pairs(folder, ENGLISH_STS), banking_pairs(folder), scifact_pairs(folder))

    return [pair for pairs in sets for pair in _drawn(pairs, PER_SET)]


SOURCES: Mapping[str, Callable[[Path], list[Pair]]] = {
    "sts": lambda folder: sts_pairs(folder, ENGLISH_STS),
    "sts-zh": lambda folder: sts_pairs(folder, ("STSB-zh",)),
    "banking": banking_pairs,
    "mixed": mixed_pairs,
}
"""What a recipe calls its pairs -> the pairs, of the folder of evaluation sets."""


def batches(pairs: Sequence[Pair], size: int, count: int, seed: int) -> Iterator[list[Pair]]:
    """Yield `count` batches of `size` pairs of different groups, passing over the pairs again where they run out.

    Raises:
        ValueError: there are fewer groups than a batch needs.
    """
    if len({pair.group for pair in pairs}) < size:
        raise ValueError(f"{len(pairs)} pairs have fewer than {size} groups: a batch cannot be filled")

    order = random.Random(seed)  # noqa: S311 - repeatable draws are wanted
    waiting: list[Pair] = []

    for _ in range(count):
        batch: dict[str, Pair] = {}
        put_back = []

        while len(batch) < size:
            if not waiting:
                waiting = order.sample(pairs, len(pairs))
            pair = waiting.pop()

            if pair.group in batch:
                put_back.append(pair)
            else:
                batch[pair.group] = pair

        waiting.extend(put_back)
        yield list(batch.values())


def _drawn(pairs: Sequence[Pair], count: int) -> list[Pair]:
    order = random.Random(0)  # noqa: S311 - repeatable draws are wanted
    return order.sample(pairs, min(count, len(pairs)))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()

    # Not `splitlines`: a text may hold characters that end a line of text, but none of JSON.
    for line in content.decode("utf-8").split("\n"):
        if line:
            yield json.loads(line)
