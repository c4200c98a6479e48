"""What texts do to an encoder: the inputs of every site, and how much each of their errors would move the embedding.

Importance is one backward pass a batch (docs/decisions/0016). With e the unit embedding and v ~ N(0, I),
the squared gradient of e.v with respect to a site's output is, in expectation, the squared length of the embedding's
movement by a unit error there; 1 - cosine is half of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.contracts import EmbeddingSpec, TokenBatch
from bge_export.encoder.encoder import SITES, Encoder, Layer
from bge_export.encoder.forward import Trace, normalize, run_layer

BATCH_TOKENS = 1024
"""Padded tokens a batch, which bound the memory of the backward pass."""

SAMPLE_TOKENS = 2200
"""Tokens whose importance is kept output by output: every first token, the others drawn."""


@dataclass(frozen=True)
class Batch:
    """Texts of similar length, ready for the first layer.

    Attributes:
        texts: their places in the corpus, [B] int64.
        state: the normalised embeddings, [B, S, H] float32.
        bias: what is added to the scores, broadcastable to [B, heads, S, S] float32.
        mask: which positions are tokens, [B, S] bool.
    """

    texts: Tensor
    state: Tensor
    bias: Tensor
    mask: Tensor


@dataclass(frozen=True)
class CalibrationSet:
    """All batches that an encoder is observed on.

    Attributes:
        chosen: the texts that everything is chosen on.
        ranges: further texts, of which only the range of each channel is taken, and how far their scores reach.
        drawn: tokens that make no text, of which only the reach of their scores is taken.
    """

    chosen: Sequence["Batch"]
    ranges: Sequence["Batch"] = ()
    drawn: Sequence["Batch"] = ()

    @property
    def batches(self) -> list["Batch"]:
        """Return all batches, in the order of the attributes."""
        return [*self.chosen, *self.ranges, *self.drawn]


@dataclass(frozen=True)
class Importance:
    """Of one site: squared gradients of the embedding with respect to its outputs.

    Attributes:
        token: summed over the outputs, for every token, [T] float32.
        output: mean over the tokens, [N] float32.
        sample: for the sampled tokens, [n, N] float32.
    """

    token: Tensor
    output: Tensor
    sample: Tensor


@dataclass(frozen=True)
class Observation:
    """One layer on the calibration texts.

    Attributes:
        inputs: of each site, [T, K] float32, T all tokens in the order of the batches.
        inner: the result of `up` before its activation, [T, I] float32.
        importance: of each site.
        low, high: the least and greatest value of each input channel over the texts and the texts for ranges, [K];
            "query" and "key" of what they are.
        query: all queries, of every batch of the set, [A, H].
        peaks: the greatest score of each, head by head, [A, heads].
    """

    inputs: dict[str, Tensor]
    inner: Tensor
    importance: dict[str, Importance]
    low: dict[str, Tensor]
    high: dict[str, Tensor]
    query: Tensor
    peaks: Tensor


@dataclass(frozen=True)
class Tokens:
    """Which tokens were observed.

    Attributes:
        text: the place of each token's text, [T] int64.
        first: whether each is the first of its text, [T] bool.
        sample: the sampled tokens, [n] int64.
    """

    text: Tensor
    first: Tensor
    sample: Tensor


def batches(
    encoder: Encoder, rows: Sequence[Sequence[int]], pad: Callable[[Sequence[Sequence[int]]], TokenBatch]
) -> list[Batch]:
    """Run the prelude on token rows, sorted by length and padded to `BATCH_TOKENS` a batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        encoder.prelude.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    found = []
    for group in groups([len(row) for row in rows]):
        tokens = pad([rows[place] for place in group])
        embedded, *biases = (torch.from_numpy(array) for array in session.run(None, tokens.feed(names)))
        found.append(
            Batch(
                texts=torch.tensor(group),
                state=normalize(encoder.embedding_norm, embedded),
                bias=sum(biases, torch.zeros(())),
                mask=torch.from_numpy(tokens.attention_mask) > 0,
            )
        )
    return found


def groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield places of similar lengths, so many that their padded size stays below `BATCH_TOKENS`."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (lengths[place], place)):
        if group and (len(group) + 1) * lengths[place] > BATCH_TOKENS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def observed_tokens(texts: Sequence[Batch], seed: int = 0) -> Tokens:
    """Return which tokens are observed, and draw the sample."""
    text = torch.cat([batch.texts[:, None].expand_as(batch.mask)[batch.mask] for batch in texts])
    first = torch.cat([_first(batch.mask)[batch.mask] for batch in texts])
    generator = torch.Generator().manual_seed(seed)
    others = (~first).nonzero()[:, 0]
    drawn = others[torch.randperm(len(others), generator=generator)[: max(0, SAMPLE_TOKENS - int(first.sum()))]]
    return Tokens(text, first, torch.cat([first.nonzero()[:, 0], drawn]).sort().values)


def _first(mask: Tensor) -> Tensor:
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return first


def importance(
    encoder: Encoder, spec: EmbeddingSpec, texts: Sequence[Batch], tokens: Tokens, advance: Callable[[int], None]
) -> list[dict[str, Importance]]:
    """Return for each layer and site how much errors of its outputs move the embedding.

    Args:
        encoder: the encoder in float32.
        spec: how the embedding is pooled.
        texts: the calibration texts.
        tokens: which tokens they hold.
        advance: called with 1 after each batch.
    """
    generator = torch.Generator().manual_seed(1)
    token: dict[tuple[int, str], list[Tensor]] = {}
    sample: dict[tuple[int, str], list[Tensor]] = {}
    total: dict[tuple[int, str], Tensor] = {}
    start = 0
    chosen = torch.zeros(len(tokens.text), dtype=torch.bool)
    chosen[tokens.sample] = True
    for batch in texts:
        count = int(batch.mask.sum())
        mine = chosen[start : start + count]
        start += count
        for place, _, gradients in backward(encoder, spec, batch, generator):
            for site, gradient in gradients.items():
                key = place, site
                squares = gradient[batch.mask].square()
                token.setdefault(key, []).append(squares.sum(-1))
                sample.setdefault(key, []).append(squares[mine])
                total[key] = total.get(key, torch.zeros(())) + squares.sum(0)
        advance(1)
    return [
        {
            site: Importance(
                torch.cat(token[place, site]), total[place, site] / len(tokens.text), torch.cat(sample[place, site])
            )
            for site in SITES
        }
        for place in range(len(encoder.layers))
    ]


def backward(
    encoder: Encoder, spec: EmbeddingSpec, batch: Batch, generator: torch.Generator
) -> Iterator[tuple[int, Trace, dict[str, Tensor]]]:
    """Yield layers from the last to the first: place, trace, and by site the gradient of e.v, [B, S, N], for a drawn v.

    Each layer is run again for its gradients, so that what they need is in memory for one layer at a time.
    """
    states = [batch.state]
    with torch.no_grad():
        for layer in encoder.layers:
            states.append(run_layer(layer, states[-1], batch.bias).state)
    last = states.pop().requires_grad_()
    embedding = torch.nn.functional.normalize(pooled(spec, last, batch.mask), dim=-1)
    direction = torch.randn(embedding.shape, generator=generator)
    (arriving,) = torch.autograd.grad((embedding * direction).sum(), last)
    for place, layer in reversed(list(enumerate(encoder.layers))):
        state = states.pop().detach().requires_grad_()
        trace = run_layer(layer, state, batch.bias)
        *gradients, arriving = torch.autograd.grad(trace.state, [*trace.outputs.values(), state], arriving)
        yield place, trace, dict(zip(trace.outputs, gradients, strict=True))


def pooled(spec: EmbeddingSpec, state: Tensor, mask: Tensor) -> Tensor:
    """Return the pooled states [B, H] of a batch [B, S, H] whose tokens the mask [B, S] shows."""
    if spec.pooling == "cls":
        return state[:, 0]
    if spec.pooling == "mean":
        weights = mask[..., None].to(state.dtype)
        return (state * weights).sum(1) / weights.sum(1)
    return state[torch.arange(len(state)), mask.sum(1) - 1]


def observe(layer: Layer, texts: CalibrationSet, states: list[Tensor], weights: dict[str, Importance]) -> Observation:
    """Return one layer on the calibration set. One layer's tensors are large: free them before the next layer.

    Args:
        layer: the layer in float32.
        texts: the calibration set.
        states: the layer's input on each batch of the set, [B, S, H]; replaced by its results.
        weights: the importance of the layer's sites.
    """
    inputs: dict[str, list[Tensor]] = {site: [] for site in SITES}
    inner: list[Tensor] = []
    asking: list[Tensor] = []
    peaks: list[Tensor] = []
    reach = _Ranges()
    widths = [part.weight.shape[1] for part in (layer.query, layer.key, layer.value)]
    ranged = len(texts.chosen) + len(texts.ranges)

    for place, batch in enumerate(texts.batches):
        with torch.no_grad():
            trace = run_layer(layer, states[place], batch.bias)
        states[place] = trace.state

        queries, keys, _ = torch.split(trace.outputs["qkv"][batch.mask], widths, dim=-1)
        asking.append(queries)
        peaks.append(trace.peaks[batch.mask])
        if place >= ranged:
            continue

        seen = {site: trace.inputs[site][batch.mask] for site in SITES}
        reach.widen({**seen, "query": queries, "key": keys})
        if place < len(texts.chosen):
            for site, rows in seen.items():
                inputs[site].append(rows)
            inner.append(trace.inner[batch.mask])

    return Observation(
        inputs={site: joined(inputs[site]) for site in SITES},
        inner=joined(inner),
        importance=weights,
        low=reach.low,
        high=reach.high,
        query=torch.cat(asking),
        peaks=torch.cat(peaks),
    )


def joined(parts: list[Tensor]) -> Tensor:
    """Return tensors [n, K] as one, and let go of each as soon as it is copied."""
    whole = torch.empty(sum(map(len, parts)), parts[0].shape[1])
    start = 0
    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


class _Ranges:
    """The least and greatest value of each channel, by name, of all rows seen so far."""

    def __init__(self) -> None:
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}

    def widen(self, seen: Mapping[str, Tensor]) -> None:
        """Add rows [n, K] by name."""
        for name, rows in seen.items():
            self.low[name] = torch.minimum(self.low.get(name, rows[0]), rows.amin(0))
            self.high[name] = torch.maximum(self.high.get(name, rows[0]), rows.amax(0))
