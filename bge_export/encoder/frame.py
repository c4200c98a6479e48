"""Writes what every arrangement of an encoder has: embeddings at the start, heads within, states at the end.

A sequence-major graph works on rows of tokens, [S*B, width], in the order of the tokens: the first B rows are the first
tokens of all texts. Its ids are transposed, since they are small; its states are turned back at the end.
"""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.contracts import LAST_HIDDEN_STATE
from bge_export.encoder.encoder import Norm
from bge_export.encoder.matching import lookups
from bge_export.encoder.writing import GraphWriter


class Frame(GraphWriter):
    """Appends the embeddings' normalisation to an encoder's prelude, and its states and tail to the layers."""

    def __init__(self, prelude: onnx.ModelProto, *, by_sequence: bool) -> None:
        """Start with a graph whose outputs are read as rows of tokens (`by_sequence`) or as [B, S, width]."""
        super().__init__(prelude, by_sequence=by_sequence)
        self.sizes: list[ir.Value] = []
        self.biases: list[ir.Value] = []

    def start(self, norm: Norm) -> ir.Value:
        """Return the normalised embeddings, rows of tokens or [B, S, H]."""
        embedded, *self.biases = list(self.graph.outputs)
        self.graph.outputs.clear()

        if self.by_sequence:
            for gather, position in lookups(embedded):
                self._transpose_ids(gather, position)
        embedded = self.tables().get(embedded, embedded)
        self.sizes = self._sizes()
        if self.by_sequence:
            embedded = self.op("Reshape", [embedded, self.integers([-1, len(norm.gamma)])], "embeddings/rows")

        return self.norm(embedded, norm, "embeddings/norm")

    def tables(self) -> dict[ir.Value, ir.Value]:
        """Change how embedding tables are stored; return the replacement of each lookup. By default, there is none."""
        return {}

    def _transpose_ids(self, gather: ir.Node, position: int) -> None:
        index = gather.inputs[position]
        assert index is not None  # noqa: S101 - a Gather has an index

        transposed = ir.node("Transpose", [index], {"perm": [1, 0]})
        transposed.outputs[0].name = f"{gather.name}/turned{position}"
        self.graph.insert_before(gather, transposed)
        gather.replace_input_with(position, transposed.outputs[0])

    def _sizes(self) -> list[ir.Value]:
        """Return batch size and sequence length, each [1] int64."""
        shape = self.op("Shape", [self.graph.inputs[0]], "sizes/ids")
        return [self.op("Gather", [shape, self.integers([axis])], f"sizes/{axis}", axis=0) for axis in (0, 1)]

    def bias(self) -> ir.Value:
        """Return the total bias of the scores, [B, 1 or heads, 1 or queries, keys]."""

        def total() -> ir.Value:
            result = self.biases[0]
            for index, bias in enumerate(self.biases[1:]):
                result = self.op("Add", [result, bias], f"bias/sum{index}")
            return result

        return self.once("bias", total)

    def split_rows(
        self, x: ir.Value, heads: int, width: int, name: str, perm: Sequence[int] = (1, 2, 0, 3)
    ) -> ir.Value:
        """Return rows of tokens, split into [S, B, heads, width of a head], in another order of axes."""

        def shape() -> ir.Value:
            parts = [self.sizes[1], self.sizes[0], self.integers([heads, width])]
            return self.op("Concat", parts, "sizes/heads", axis=0)

        split = self.op("Reshape", [x, self.once("sizes/heads", shape)], f"{name}/split")
        return self.op("Transpose", [split], f"{name}/heads", perm=perm)

    def together(self, heads: ir.Value, hidden: int, perm: Sequence[int]) -> ir.Value:
        """Return the mixtures of all heads side by side, rows of tokens or [B, S, H]."""
        rows = self.op("Transpose", [heads], "attention/rows", perm=perm)
        shape = [-1, hidden] if self.by_sequence else [0, 0, hidden]
        return self.op("Reshape", [rows, self.integers(shape)], "attention")

    def transposed(self, x: ir.Value, name: str) -> ir.Value:
        """Return x with its last two axes exchanged."""
        return self.op("Transpose", [x], f"{name}/columns", perm=[0, 1, 3, 2])

    def finish(
        self,
        state: ir.Value,
        hidden: int,
        tail: onnx.ModelProto | None,
        order: NDArray[np.int64] | None = None,
        *,
        cls_only: bool = False,
    ) -> onnx.ModelProto:
        """Return the graph, with the last hidden state [B, S or 1, H] and the tail's outputs.

        Args:
            state: the state after the last layer, rows of tokens or [B, S, H].
            hidden: hidden width.
            tail: the graph after the last hidden state, or None.
            order: `Encoder.hidden_order`.
            cls_only: whether the state is that of first tokens alone.
        """
        if order is not None:
            state = self._ordered(state, order)

        if self.by_sequence and cls_only:
            state = self.op("Unsqueeze", [state, self.integers([1])], "first/state")
        elif self.by_sequence:
            shape = self.op("Concat", [self.sizes[1], self.sizes[0], self.integers([hidden])], "sizes/states", axis=0)
            state = self.op("Transpose", [self.op("Reshape", [state, shape], "states/split")], "states", perm=[1, 0, 2])

        state.name, state.dtype = LAST_HIDDEN_STATE, ir.DataType.FLOAT
        state.shape = ir.Shape(["batch_size", 1 if cls_only else "sequence_length", hidden])
        self.graph.outputs.append(state)

        model = ir.to_proto(self.model)
        if tail is not None:
            model.graph.node.extend(tail.graph.node)
            # Constants that embeddings and head share stand in both graphs.
            stored = {tensor.name for tensor in model.graph.initializer}
            model.graph.initializer.extend(one for one in tail.graph.initializer if one.name not in stored)
            model.graph.output.extend(tail.graph.output)

        return model

    def _ordered(self, state: ir.Value, order: NDArray[np.int64]) -> ir.Value:
        """Return the states, rows of tokens or [B, S, H], with channels in the model's original order."""
        positions = self.constant(np.argsort(order).astype(np.int64), "order")
        if not self.by_sequence:
            return self.op("Gather", [state, positions], "states", axis=2)

        # Channels come first in between, so that whole rows of memory are reordered, not single numbers. In two
        # dimensions, since ONNX Runtime transposes three much more slowly.
        channels = self.op("Transpose", [state], "states/channels", perm=[1, 0])
        ordered = self.op("Gather", [channels, positions], "states/ordered", axis=0)
        return self.op("Transpose", [ordered], "states/back", perm=[1, 0])
