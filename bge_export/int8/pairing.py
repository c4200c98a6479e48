"""Orders the channels of an encoder so that the pair rule costs nothing where the order is free.

The rule (`pair_rule`) limits two large weights of the same sign only where they are neighbours along the inputs of a
linear layer, and which channels are neighbours is free: the neurons of a feed-forward, the channels within a head, and
the hidden channels of the whole encoder may stand in any order. Neighbours are chosen by minimum-cost matching.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.int8.rounding import GREATEST
from bge_export.pair_rule import PAIR_SUM

ROUNDS = 3
"""Matchings one after the other: each keeps one half of every pair and looks for the best other half again."""


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads the channels which are ordered.

    Attributes:
        weight: [K, N], for the inputs as they are rounded.
        diagonal: mean squares of these inputs, [K].
        importance: of the outputs, [N].
    """

    weight: Tensor
    diagonal: Tensor
    importance: Tensor


def order_channels(readers: Iterable[Reader], groups: int = 1) -> Tensor:
    """Return an order of the K channels, [K] int64, whose neighbours 2i and 2i + 1 cost the pair rule least.

    Args:
        readers: all linear layers that read them.
        groups: channels stay within their group of K / groups, such as a head.
    """
    readers = list(readers)
    count = len(readers[0].weight)
    if count % (2 * groups):
        return torch.arange(count)
    codes = [_codes(reader.weight) for reader in readers]
    size = count // groups
    order = [_order_group(torch.arange(start, start + size), readers, codes) for start in range(0, count, size)]
    return torch.cat(order)


def _order_group(channels: Tensor, readers: list[Reader], codes: list[tuple[Tensor, Tensor]]) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    costs = _costs(channels, readers, codes)
    threat = costs.sum(1)
    places = torch.argsort(threat, descending=True, stable=True)
    first, second = places[: len(places) // 2], places[len(places) // 2 :]
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDS):
        rows, columns = linear_sum_assignment(costs[first][:, second].numpy())
        pairs = torch.stack([first[rows], second[columns]], dim=1)
        # Which of a pair is kept is drawn, so that the next matching may join what this one could not.
        kept = torch.randint(0, 2, (len(pairs), 1), generator=generator)
        first, second = pairs.gather(1, kept)[:, 0], pairs.gather(1, 1 - kept)[:, 0]
    return channels[pairs.sort(dim=1).values.reshape(-1)]


def _codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(0).clamp(min=1e-12) / GREATEST
    return torch.round(weight / scale), scale


def _costs(channels: Tensor, readers: list[Reader], codes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return for each two channels the predicted error of limiting one of them, [n, n].

    A pair whose codes are both large is counted from both sides, which only makes it dearer.
    """
    costs = torch.zeros(len(channels), len(channels))
    for reader, (all_codes, scale) in zip(readers, codes, strict=True):
        mine, diagonal = all_codes[channels], reader.diagonal[channels]
        price = scale.square() * reader.importance
        # a pair conflicts only with a code above half of the sum in it
        for place, row in enumerate(mine):
            large = row.abs() > PAIR_SUM // 2
            row, others = row[large], mine[:, large]
            over = (row.abs() + others.abs() - PAIR_SUM).clamp(min=0) * (row * others > 0)
            paid = over.square() @ price[large] * torch.minimum(diagonal, diagonal[place])
            costs[place] += paid
            costs[:, place] += paid
    return costs
