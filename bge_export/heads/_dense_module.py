"""The dense head in torch, apart from the rest because torch loads slowly."""

import torch
from torch import Tensor, nn

from bge_export.contracts import Pooling


class DenseModule(nn.Module):
    """Pooling and optional L2 normalisation, in a graph or under a gradient."""

    def __init__(self, dim: int, pooling: Pooling, *, normalize: bool) -> None:
        """Make a module without weights; the arguments are the fields of `Dense`."""
        super().__init__()
        self.dim = dim
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [B, D] from states [B, S, D] and the mask [B, S], integers or booleans."""
        if self.pooling == "cls":
            pooled = states[:, 0]
        elif self.pooling == "mean":
            weights = attention_mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
        else:
            # The last token's place, whether padding precedes or follows the text.
            places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
            last = (attention_mask.to(torch.int64) * places).amax(1, keepdim=True).unsqueeze(-1)
            pooled = torch.gather(states, 1, last.expand(-1, -1, self.dim))[:, 0]

        return nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled
