"""The torch module of a static embedding: token states are rows of a table."""

from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor, nn

from bge_export.checkpoint.config_file import CONFIG
from bge_export.checkpoint.static_folder import DIVIDED, DROPPED, STATIC
from bge_export.checkpoint.static_table import folded, read_table
from bge_export.contracts import Checkpoint
from bge_export.files.json_files import positive_integer, read_object


class States(tuple[Tensor, ...]):
    """The output of the model: the states [B, S, D] first, as transformers' encoders return them."""

    @property
    def last_hidden_state(self) -> Tensor:
        """Return the states."""
        return self[0]


class StaticEncoder(nn.Module):
    """Looks up one row a token, [B, S] int64 -> states [B, S, D] float32; those of padding are zero.

    So is the row of a dropped token. Where the length of the mean counts, states are multiplied by the number of tokens
    over that of those that are kept, so that every client's mean of all tokens is the mean of those kept.
    """

    def __init__(self, table: Tensor, dropped: int | None, config: SimpleNamespace) -> None:
        """Make an encoder.

        Args:
            table: [V, D] float32.
            dropped: the id of a token that does not count in the mean; None if all count.
            config: what transformers' configurations say too.
        """
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table, freeze=True)  # type: ignore[no-untyped-call]  # torch's
        self.dropped = dropped
        self.config = config

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the table."""
        return cast("nn.Embedding", self.table)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> States:
        """Return the states of every place."""
        states: Tensor = self.table(input_ids)
        there = torch.ones_like(input_ids) if attention_mask is None else attention_mask

        # Clients give every encoder a mask, so the graph must read it.
        factor = there.to(states.dtype)
        if self.dropped is not None:
            kept = there * (input_ids != self.dropped).to(there.dtype)
            factor = factor * (factor.sum(1, keepdim=True) / kept.sum(1, keepdim=True).to(states.dtype).clamp(min=1.0))
        return States((states * factor[:, :, None],))


def load_static(checkpoint: Checkpoint) -> StaticEncoder:
    """Return the model of a static checkpoint, in float32, in evaluation mode.

    Raises:
        CheckpointError: its files cannot be read.
    """
    config = read_object(checkpoint.root / CONFIG)
    number = config.get(DROPPED)
    dropped = number if isinstance(number, int) else None
    table = torch.from_numpy(folded(read_table(checkpoint.root / checkpoint.weights[0]), dropped=dropped))

    # Of a mean that is divided by its norm at once, the factor changes nothing.
    counted = None if config.get(DIVIDED) is True else dropped
    longest = positive_integer(config.get("max_position_embeddings"))
    known = SimpleNamespace(model_type=STATIC, hidden_size=table.shape[1], max_position_embeddings=longest)
    return StaticEncoder(table, counted, known).eval()
