"""Refusals as the lines of a terminal: all of them where they are few, else the worst of each rule in each lane."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from bge_export.parity.gate.verdict import Failure
from bge_export.texts.corpus import Kind

LINES = 20
"""Lines of reasons and advice on the terminal, at most: a list that scrolls away hides the verdict."""


@dataclass(frozen=True)
class Topic:
    """Refusals that call for the same advice, by rule, lane and kind of text; those of stress texts come last."""

    advice: str
    groups: Sequence[Sequence[Failure]]


def reason_lines(failures: Iterable[Failure]) -> list[Text]:
    """Return at most `LINES` lines: the reasons, those with one advice together, each time with the advice below.

    Where all reasons do not fit, those by one rule in one lane, of one kind of text, share a line that shows the worst
    of them and how many more there are. Where that is still too long, lines are left out at the end of each topic, and
    topics last.
    """
    topics = _topics(failures)
    if len(lines := list(_all(topics))) <= LINES:
        return lines

    for shown in range(LINES, 0, -1):
        if len(lines := list(_worst(topics, shown))) <= LINES:
            return lines
    return _cut(topics)


def _topics(failures: Iterable[Failure]) -> list[Topic]:
    """Return the refusals by advice.

    Everyday and stress texts do not share a line: the worst of both is often a stress text's, and everyday ones matter.
    """
    found: dict[str, dict[tuple[str, str, Kind | None], list[Failure]]] = {}
    for failure in failures:
        groups = found.setdefault(failure.advice, {})
        groups.setdefault((failure.rule, failure.lane, failure.kind), []).append(failure)
    return [
        Topic(advice, sorted(groups.values(), key=lambda group: group[0].kind == "stress"))
        for advice, groups in found.items()
    ]


def _all(topics: Iterable[Topic]) -> Iterator[Text]:
    for topic in topics:
        for failure in (one for group in topic.groups for one in group):
            yield _reason(failure.message)
        yield _advice(topic)


def _worst(topics: Iterable[Topic], shown: int) -> Iterator[Text]:
    """Yield the worst refusal of each of the first groups of each topic, `shown` of them at most."""
    for topic in topics:
        for group in topic.groups[:shown]:
            more = f" … and {len(group) - 1} more there" if len(group) > 1 else ""
            yield _reason(f"{max(group, key=_badness).message}{more}")

        left = sum(len(group) for group in topic.groups[shown:])
        if left:
            yield Text(f"        … and {left} more in {len(topic.groups) - shown} other places")
        yield _advice(topic)


def _cut(topics: Sequence[Topic]) -> list[Text]:
    """Return the first topics, one line of reasons each, and a line that counts what is left out."""
    kept = list(topics)
    while len(lines := list(_worst(kept, 1))) > LINES - 1:
        kept.pop()
    left = sum(len(group) for topic in topics[len(kept) :] for group in topic.groups)
    return [*lines, Text(f"        … and {left} more by other rules")]


def _badness(failure: Failure) -> float:
    """Return what sorts refusals of one rule, the worst highest; a figure that does not exist is worse than any."""
    if failure.figure is None:
        return math.inf
    return -failure.figure if failure.rule.endswith("cosine") else failure.figure


def _reason(message: str) -> Text:
    return Text.assemble(("refused ", "bold red"), message)


def _advice(topic: Topic) -> Text:
    return Text(f"        {topic.advice}", style="dim")
