"""The oracle of static embeddings: tokens and states as model2vec and sentence-transformers compute them.

The stored tensors are read here once more and looked up token by token; nothing of `checkpoint.static_model` computes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from bge_export.contracts import Checkpoint
from bge_export.files.panics import panics_as_errors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def static_parts(checkpoint: Checkpoint) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Return the model and the tokenizer of a static checkpoint, whose files were checked when it was opened."""
    config = json.loads((checkpoint.root / "config.json").read_text("utf-8"))
    table = StaticTable(checkpoint.root / checkpoint.weights[0], config["dropped_id"], divided=config["divided"])
    tokens = StaticTokens(checkpoint.root / "tokenizer.json", checkpoint)
    return cast("PreTrainedModel", table.eval()), cast("PreTrainedTokenizerBase", tokens)


class StaticTokens:
    """The tokenizer, used as both libraries use it: without special tokens and without padding."""

    bos_token_id = None
    cls_token_id = None

    def __init__(self, path: Path, checkpoint: Checkpoint) -> None:
        """Read the file."""
        from tokenizers import Tokenizer

        settings = json.loads((path.parent / "tokenizer_config.json").read_text("utf-8"))
        with panics_as_errors():
            self._tokenizer = Tokenizer.from_file(str(path))
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(checkpoint.spec.inputs.max_tokens)
        self.pad_token_id = self._tokenizer.token_to_id(settings["pad_token"])

    def __call__(self, text: str, *, return_tensors: str | None = None, **_: object) -> dict[str, Any]:
        """Return the ids of a text, as transformers' tokenizers do."""
        ids: Sequence[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return {"input_ids": torch.tensor([ids], dtype=torch.int64) if return_tensors else list(ids)}


class StaticTable(nn.Module):
    """The stored tensors as an encoder, whose state of a token is its row times its weight."""

    def __init__(self, path: Path, dropped: int | None, *, divided: bool) -> None:
        """Read the tensors.

        Args:
            path: the file.
            dropped: the id of the unknown token, if the mean leaves it out.
            divided: whether the mean is divided by its norm at once.
        """
        from safetensors.torch import load_file

        super().__init__()
        stored = load_file(path)
        self._rows = stored.get("embedding.weight", stored.get("embeddings")).float()  # type: ignore[union-attr]
        self._mapping = stored.get("mapping")
        self._weights = stored.get("weights")
        self._dropped = dropped
        self._divided = divided
        self.config = None

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the states of all tokens as a table."""
        count = len(self._rows if self._mapping is None else self._mapping)
        table = self._looked_up(torch.arange(count))
        if self._dropped is not None:
            table[self._dropped] = 0.0
        return nn.Embedding.from_pretrained(table)  # type: ignore[no-any-return, no-untyped-call]  # torch's

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> "_Output":
        """Return states [B, S, D], whose mean over a text is the mean of the tokens that are kept."""
        states = self._looked_up(input_ids)
        if self._dropped is None:
            return _Output((states,))

        kept = input_ids != self._dropped
        states = torch.where(kept[:, :, None], states, torch.zeros(()))
        if self._divided:
            return _Output((states,))

        there = torch.ones_like(kept) if attention_mask is None else attention_mask.bool()
        for row, own, counted in zip(states, there, kept & there, strict=True):
            row *= own.sum() / max(1, int(counted.sum()))
        return _Output((states,))

    def _looked_up(self, ids: Tensor) -> Tensor:
        """Return the row of each id times its weight."""
        rows = self._rows[ids if self._mapping is None else self._mapping[ids].long()]
        return rows.clone() if self._weights is None else rows * self._weights[ids].float()[..., None]


class _Output(tuple[Tensor, ...]):
    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]
