"""Observes an encoder on texts: inputs of each quantization point, and how far errors there move the embedding.

Importance takes one backward pass per batch (docs/decisions/0016). With e the unit embedding and v ~ N(0, I), the
expected squared gradient of e.v with respect to an output is the squared distance by which a unit error there moves the
embedding; 1 - cosine is half of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bge_export.calibration.objective import Objective, unit_embeddings
from bge_export.contracts import TokenBatch
from bge_export.encoder.encoder import POINTS, Encoder, Layer
from bge_export.encoder.forward import Trace, normalize, run_layer
from bge_export.progress import advance

BATCH_TOKENS = 1024
"""Padded tokens per batch, which bound the memory of the backward pass."""

SAMPLE_TOKENS = 2200
"""Tokens whose importance is kept per output: every text's first token, and a random sample of the others."""


@dataclass(frozen=True)
class Batch:
    """Texts of similar length, ready for the first layer.

    Attributes:
        texts: index of each text among the rows given to `batches`, [B] int64.
        state: the normalised embeddings, [B, S, H] float32.
        bias: terms added to the scores, broadcastable to [B, heads, S, S] float32.
        mask: which positions are tokens, [B, S] bool.
    """

    texts: Tensor
    state: Tensor
    bias: Tensor
    mask: Tensor


@dataclass(frozen=True)
class CalibrationSet:
    """All batches on which an encoder is observed.

    Attributes:
        chosen: texts on which all parameters are chosen.
        ranges: further texts, used only for the range of each channel and the largest scores.
        drawn: random tokens that do not form a text, used only for the largest scores.
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
    """Squared gradients of the embedding with respect to the outputs computed from one quantization point.

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
        inputs: inputs by quantization point, [T, K] float32; T counts the tokens of the chosen
            texts, in the order of their batches.
        inner: the result of `up` before its activation, [T, I] float32.
        importance: importance by quantization point.
        low, high: minimum and maximum of each input channel over the chosen texts and those for ranges, [K]; the
            entries "query" and "key" are those of queries and keys.
        query: the queries of all tokens of the whole set, [A, H].
        peaks: the largest score of each query by head, [A, heads].
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
        text: index of each token's text, [T] int64.
        first: whether each token is the first of its text, [T] bool.
        sample: indices of the sampled tokens, [n] int64.
    """

    text: Tensor
    first: Tensor
    sample: Tensor


def batches(
    encoder: Encoder, rows: Sequence[Sequence[int]], pad: Callable[[Sequence[Sequence[int]]], TokenBatch]
) -> list[Batch]:
    """Run the prelude on token rows, in batches of similar length of at most `BATCH_TOKENS` padded tokens."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        encoder.prelude.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]

    found = []
    for group in groups([len(row) for row in rows]):
        tokens = pad([rows[index] for index in group])
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
    """Yield groups of indices of similar lengths, each of at most `BATCH_TOKENS` padded tokens or one row."""
    group: list[int] = []

    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if group and (len(group) + 1) * lengths[index] > BATCH_TOKENS:
            yield group
            group = []
        group.append(index)

    if group:
        yield group


def observed_tokens(texts: Sequence[Batch], seed: int = 0) -> Tokens:
    """Return the observed tokens with a random sample of them."""
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
    encoder: Encoder, objective: Objective, texts: Sequence[Batch], tokens: Tokens
) -> list[dict[str, Importance]]:
    """Return how far errors in the outputs of each layer's quantization points move the embedding.

    Progress counts batches.

    Args:
        encoder: the encoder in float32.
        objective: what errors may move: the embedding, or a logit.
        texts: the calibration texts.
        tokens: the tokens of these texts.
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

        for layer_index, _, gradients in backward(encoder, objective, batch, generator):
            for point, gradient in gradients.items():
                key = layer_index, point
                squares = gradient[batch.mask].square()
                token.setdefault(key, []).append(squares.sum(-1))
                sample.setdefault(key, []).append(squares[mine])
                total[key] = total.get(key, torch.zeros(())) + squares.sum(0)

        advance()

    return [
        {
            point: Importance(
                torch.cat(token[layer_index, point]),
                total[layer_index, point] / len(tokens.text),
                torch.cat(sample[layer_index, point]),
            )
            for point in POINTS
        }
        for layer_index in range(len(encoder.layers))
    ]


def backward(
    encoder: Encoder, objective: Objective, batch: Batch, generator: torch.Generator
) -> Iterator[tuple[int, Trace, dict[str, Tensor]]]:
    """Yield per layer, last first: its index, its trace, and the gradient of e.v by quantization point, [B, S, N].

    v is drawn at random. Each layer runs again for its gradients, so only one layer's trace is in memory at a time.
    """
    states = [batch.state]
    with torch.no_grad():
        for layer in encoder.layers:
            states.append(run_layer(layer, states[-1], batch.bias).state)

    last = states.pop().requires_grad_()
    embedding = unit_embeddings(objective, last, batch.mask)
    direction = torch.randn(embedding.shape, generator=generator)
    (arriving,) = torch.autograd.grad((embedding * direction).sum(), last)

    for layer_index, layer in reversed(list(enumerate(encoder.layers))):
        state = states.pop().detach().requires_grad_()
        trace = run_layer(layer, state, batch.bias)

        # `arriving` is the gradient with respect to this layer's result, and next to its input.
        *gradients, arriving = torch.autograd.grad(trace.state, [*trace.outputs.values(), state], arriving)
        yield layer_index, trace, dict(zip(trace.outputs, gradients, strict=True))


def observe(layer: Layer, texts: CalibrationSet, states: list[Tensor], weights: dict[str, Importance]) -> Observation:
    """Run one layer on the calibration set. The observed tensors are large: free them before the next layer.

    Args:
        layer: the layer in float32.
        texts: the calibration set.
        states: the layer's input on each batch of the set, [B, S, H]; replaced in place by the layer's results.
        weights: importance by quantization point of the layer.
    """
    inputs: dict[str, list[Tensor]] = {point: [] for point in POINTS}
    inner: list[Tensor] = []
    asking: list[Tensor] = []
    peaks: list[Tensor] = []
    reach = _Ranges()
    widths = [part.weight.shape[1] for part in (layer.query, layer.key, layer.value)]
    ranged = len(texts.chosen) + len(texts.ranges)

    for number, batch in enumerate(texts.batches):
        with torch.no_grad():
            trace = run_layer(layer, states[number], batch.bias)
        states[number] = trace.state

        queries, keys, _ = torch.split(trace.outputs["qkv"][batch.mask], widths, dim=-1)
        asking.append(queries)
        peaks.append(trace.peaks[batch.mask])
        if number >= ranged:
            continue

        seen = {point: trace.inputs[point][batch.mask] for point in POINTS}
        reach.widen({**seen, "query": queries, "key": keys})
        if number < len(texts.chosen):
            for point, rows in seen.items():
                inputs[point].append(rows)
            inner.append(trace.inner[batch.mask])

    return Observation(
        inputs={point: joined(inputs[point]) for point in POINTS},
        inner=joined(inner),
        importance=weights,
        low=reach.low,
        high=reach.high,
        query=torch.cat(asking),
        peaks=torch.cat(peaks),
    )


def joined(parts: list[Tensor]) -> Tensor:
    """Concatenate tensors [n, K]; empty `parts` on the way, so that each is freed as soon as it is copied."""
    whole = torch.empty(sum(map(len, parts)), parts[0].shape[1])
    start = 0

    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)

    return whole


class _Ranges:
    """Minimum and maximum of each channel over all rows seen so far, by name."""

    def __init__(self) -> None:
        self.low: dict[str, Tensor] = {}
        self.high: dict[str, Tensor] = {}

    def widen(self, seen: Mapping[str, Tensor]) -> None:
        """Widen the ranges by rows [n, K], by name."""
        for name, rows in seen.items():
            self.low[name] = torch.minimum(self.low.get(name, rows[0]), rows.amin(0))
            self.high[name] = torch.maximum(self.high.get(name, rows[0]), rows.amax(0))
