"""The masks of traced encoders: transformers' own rules, written as numbers that float16 holds too."""

from pathlib import Path

import onnx
import pytest
import torch
from modern import build_modern
from transformers import masking_utils
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.graph.masks import EAGER, additive_mask, own_masks
from bge_export.graph.trace import trace

TOKENS = 9
MASK = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [0] * 6 + [1] * 3, [1, 1, 0, 1, 0, 0, 1, 1, 1], [0] * 9])
"""A whole text, padding on the right and on the left, holes, and nothing but padding."""

RULES = {
    "all": masking_utils.bidirectional_mask_function,
    "causal": masking_utils.causal_mask_function,
    "window": masking_utils.sliding_window_bidirectional_mask_function(2),
    "causal window": masking_utils.sliding_window_causal_mask_function(3),
    "chunks": masking_utils.chunked_causal_mask_function(4, torch.zeros(len(MASK), dtype=torch.int64)),
}


def given(rule: str) -> dict:
    sizes = {"batch_size": len(MASK), "q_length": TOKENS, "kv_length": TOKENS}
    return {**sizes, "mask_function": RULES[rule], "attention_mask": MASK.bool()}


@pytest.mark.parametrize("rule", RULES)
def test_every_token_that_sees_one_sees_what_the_architecture_lets_it_see(rule: str) -> None:
    theirs = eager_mask(**given(rule)).expand(-1, -1, TOKENS, TOKENS)
    own = additive_mask(**given(rule)).expand(-1, -1, TOKENS, TOKENS)
    scores = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(0))

    sees = (theirs == 0).any(-1)
    assert sees.any()
    assert not sees.all()
    assert torch.equal((scores + own).softmax(-1)[sees], (scores + theirs).softmax(-1)[sees])


@pytest.mark.parametrize("rule", RULES)
def test_a_row_that_sees_nothing_is_finite_in_float16(rule: str) -> None:
    scores = torch.full((len(MASK), 1, TOKENS, TOKENS), -1000.0, dtype=torch.float16)
    assert (scores + additive_mask(**given(rule)).half()).softmax(-1).isfinite().all()


def test_where_every_token_sees_every_other_the_mask_has_no_row_for_each_token() -> None:
    assert additive_mask(**given("all")).shape == (len(MASK), 1, 1, TOKENS)


def test_transformers_own_masks_are_back_after_an_error() -> None:
    def fail() -> None:
        assert ALL_MASK_ATTENTION_FUNCTIONS[EAGER] is additive_mask
        raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"), own_masks():
        fail()
    assert ALL_MASK_ATTENTION_FUNCTIONS[EAGER] is eager_mask


@pytest.mark.parametrize("name", ["modernbert", "mistral", "t5"])
def test_a_traced_mask_takes_no_index_for_each_pair_of_tokens_of_each_text(name: str, tmp_path: Path) -> None:
    graph = trace(open_checkpoint(build_modern(name, tmp_path / name)), tmp_path, sentence_embedding=False).graph
    operators = {node.op_type for node in graph.node}
    assert not operators & {"Flatten", "GatherND", "ScatterND", "If", "Loop"}

    wide = [
        value.name
        for value in graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64
        and len(value.type.tensor_type.shape.dim) == 4
        and value.type.tensor_type.shape.dim[0].dim_param == "batch_size"
    ]
    assert wide == []
