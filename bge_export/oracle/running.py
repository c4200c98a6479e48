"""Runs a checkpoint on texts as the oracle does: eager torch in float32, one text at a time, without padding."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from bge_export.checkpoint.model import first_line, load_model
from bge_export.checkpoint.static_folder import STATIC
from bge_export.contracts import COMMON_POOLINGS, Checkpoint, Pooling
from bge_export.errors import CheckpointError, MissingLibrary
from bge_export.files.panics import panics_as_errors
from bge_export.heads.dense import dense_head
from bge_export.oracle.following import Following
from bge_export.oracle.pooling import pooled
from bge_export.progress import advance

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Eager:
    """A checkpoint with its weights in memory, and transformers' own tokenizer of it."""

    checkpoint: Checkpoint
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"

    @classmethod
    def load(cls, checkpoint: Checkpoint, threads: int) -> Self:
        """Load weights and tokenizer; torch then has `threads` threads.

        Raises:
            CheckpointError: weights or tokenizer cannot be loaded.
            MissingLibrary: torch or transformers is not installed.
        """
        _require_libraries()
        import torch

        torch.set_num_threads(threads)
        if checkpoint.model_type != STATIC:
            tokenizer = own_tokenizer(checkpoint)
            return cls(checkpoint, load_model(checkpoint), tokenizer)

        from bge_export.oracle.static import static_parts  # it needs torch, which may be missing

        return cls(checkpoint, *static_parts(checkpoint))

    def embed(
        self, texts: Iterable[tuple[str, str]]
    ) -> tuple[tuple[tuple[int, ...], ...], dict[str, NDArray[np.float32]]]:
        """Return the token ids of N texts, and pooling -> their vectors, [N, D]; progress counts texts.

        The poolings are the promised one and those that clients have, by which a wrong one is recognised.

        Args:
            texts: id and text of each.

        Raises:
            CheckpointError: tokenizer or model fails on a text.
        """
        import torch

        following = Following(self.checkpoint)

        token_ids: list[tuple[int, ...]] = []
        own = dense_head(self.checkpoint.spec).pooling
        rows: dict[Pooling, list[NDArray[np.float32]]] = {name: [] for name in (*COMMON_POOLINGS, own)}

        with torch.inference_mode():
            for text_id, text in texts:
                tokens = self.tokens(text)
                states = self.output(tokens, text_id)

                for pooling, vectors in rows.items():
                    vectors.append(following.embedding(pooled(states, pooling)).numpy())

                token_ids.append(tuple(tokens["input_ids"][0].tolist()))
                advance()

        return tuple(token_ids), {name: np.stack(vectors) for name, vectors in rows.items()}

    def output(self, tokens: "Mapping[str, torch.Tensor]", text_id: str) -> "torch.Tensor":
        """Return the model's first output for one text: token states [S, D] float32, or a language model's logits.

        Raises:
            CheckpointError: the model fails.
        """
        names = ("input_ids", "token_type_ids") if self.checkpoint.token_types else ("input_ids",)
        try:
            given = self.model(**{name: tokens[name] for name in names})
            states: torch.Tensor = given[0][0]
        except Exception as error:  # every architecture raises kinds of its own
            raise CheckpointError(
                f"{self.checkpoint.source}: the model fails on the text {text_id[:40]!r} of "
                f"{tokens['input_ids'].shape[1]} tokens: {first_line(error)}. Choose another checkpoint, or correct "
                "config.json."
            ) from error

        return states

    def tokens(self, text: str) -> "Mapping[str, torch.Tensor]":
        """Return the tokens of one text, [1, S] int64 each.

        Raises:
            CheckpointError: the tokenizer fails.
        """
        try:
            with panics_as_errors():
                tokens: Mapping[str, torch.Tensor] = self.tokenizer(
                    text,
                    truncation=True,
                    max_length=self.checkpoint.spec.inputs.max_tokens,
                    return_tensors="pt",
                    return_token_type_ids=self.checkpoint.token_types,
                )
        except Exception as error:
            raise CheckpointError(
                f"{self.checkpoint.source}: its tokenizer fails on a text: {error}. Fetch its files again."
            ) from error

        return tokens


def own_tokenizer(checkpoint: Checkpoint) -> "PreTrainedTokenizerBase":
    """Return the checkpoint's tokenizer, as transformers loads it.

    Raises:
        CheckpointError: it cannot be loaded.
        MissingLibrary: torch or transformers is not installed.
    """
    _require_libraries()
    from transformers import AutoTokenizer

    try:
        with panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.root, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{checkpoint.source}: transformers cannot load its tokenizer: {error}") from error

    return tokenizer


def _require_libraries() -> None:
    """Raise MissingLibrary if what runs a checkpoint is missing, before anything is loaded."""
    try:
        import torch  # noqa: F401 - only its presence counts
        import transformers  # noqa: F401 - the same
    except ImportError as error:
        raise MissingLibrary("torch and transformers", "export", "the oracle") from error
