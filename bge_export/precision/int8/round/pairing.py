"""Orders the channels of an encoder so that the saturation constraint costs least.

The constraint (`saturation`) limits two large weights of the same sign only if they are neighbours along the inputs of
a linear layer. The order of channels is free for the neurons of a feed-forward, for the channels within a head, and for
the hidden channels of the whole encoder. Neighbours are chosen by minimum-cost matching.

If an input is scaled, a channel may also be sign-flipped (its scale and its row of weights change their signs), which
turns two weights of the same sign into two of opposite signs. The second of two neighbours is flipped if that helps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.precision.int8.round.rounding import GREATEST, excess
from bge_export.saturation import PAIR_SUM

ROUNDS = 3
"""Number of successive matchings: each keeps one half of every pair and searches for the best other half again."""


@dataclass(frozen=True)
class Reader:
    """A linear layer that reads the channels to be ordered.

    Attributes:
        weight: weight for the inputs as they are rounded, [K, N].
        diagonal: mean squares of these inputs, [K].
        importance: importance of the outputs, [N].
        may_flip: whether its channels may be sign-flipped.
    """

    weight: Tensor
    diagonal: Tensor
    importance: Tensor
    may_flip: bool = False


def order_channels(readers: Iterable[Reader], groups: int = 1) -> tuple[Tensor, list[Tensor]]:
    """Return an order of K channels, [K] int64, in which neighbours 2i and 2i + 1 cost the constraint least.

    Also return, for each reader, the sign of each channel in that order, [K] of 1 and -1.

    Args:
        readers: all linear layers that read the channels.
        groups: number of groups of K / groups channels, such as heads; channels stay within their group.
    """
    readers = list(readers)
    count = len(readers[0].weight)
    if count % (2 * groups):
        return torch.arange(count), [torch.ones(count) for _ in readers]

    codes = [_codes(reader.weight) for reader in readers]
    size = count // groups
    groups_of = [_order_group(torch.arange(start, start + size), readers, codes) for start in range(0, count, size)]

    order = torch.cat(groups_of)
    return order, [_signs(order, reader, own) for reader, own in zip(readers, codes, strict=True)]


def _order_group(channels: Tensor, readers: list[Reader], codes: list[tuple[Tensor, Tensor]]) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    costs = _costs(channels, readers, codes)

    # Pair the half of the channels that costs most with the other half first.
    threat = costs.sum(1)
    by_threat = torch.argsort(threat, descending=True, stable=True)
    first, second = by_threat[: len(by_threat) // 2], by_threat[len(by_threat) // 2 :]

    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDS):
        rows, columns = linear_sum_assignment(costs[first][:, second].numpy())
        pairs = torch.stack([first[rows], second[columns]], dim=1)
        # The kept half is random, so that the next matching can join channels that this one could not.
        kept = torch.randint(0, 2, (len(pairs), 1), generator=generator)
        first, second = pairs.gather(1, kept)[:, 0], pairs.gather(1, 1 - kept)[:, 0]

    return channels[pairs.sort(dim=1).values.reshape(-1)]


def _codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(0).clamp(min=1e-12) / GREATEST
    return torch.round(weight / scale), scale


def _costs(channels: Tensor, readers: list[Reader], codes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return, for every two channels, the predicted error of limiting one of them, [n, n].

    A pair whose quantized values are both large is counted from both sides, which only raises its cost.
    """
    costs = torch.zeros(len(channels), len(channels))
    for reader, (all_codes, scale) in zip(readers, codes, strict=True):
        mine, diagonal = all_codes[channels], reader.diagonal[channels]
        price = scale.square() * reader.importance
        same, opposite = torch.zeros_like(costs), torch.zeros_like(costs)

        # A pair can saturate only if one of its quantized values exceeds half of the allowed sum.
        for index, row in enumerate(mine):
            large = row.abs() > PAIR_SUM // 2
            least = torch.minimum(diagonal, diagonal[index])
            for paid, sign in ((same, 1), (opposite, -1)) if reader.may_flip else ((same, 1),):
                this = excess(sign * row[large], mine[:, large]).square() @ price[large] * least
                paid[index] += this
                paid[:, index] += this

        costs += torch.minimum(same, opposite) if reader.may_flip else same
    return costs


def _signs(order: Tensor, reader: Reader, codes: tuple[Tensor, Tensor]) -> Tensor:
    signs = torch.ones(len(order))
    if reader.may_flip:
        first, second = codes[0][order[0::2]], codes[0][order[1::2]]
        price = codes[1].square() * reader.importance
        flipped = excess(-first, second).square() @ price < excess(first, second).square() @ price
        signs[1::2] = 1 - 2 * flipped.float()
    return signs
