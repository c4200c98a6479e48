"""Knows the architectures whose attention is BERT's: every token sees every other, by scores, a mask and a softmax.

Only there may the wrapper replace the mask and fold the biases. Other architectures make masks of their own (causal,
sliding windows) or turn their keys by position, so they get the mask [B, S] and keep their biases.
"""

from transformers import PretrainedConfig

MODEL_TYPES = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "data2vec-text",
        "distilbert",
        "electra",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
    }
)


def has_textbook_attention(config: PretrainedConfig) -> bool:
    """Return whether a model's attention is BERT's; a decoder's is not, since its tokens see only earlier ones."""
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    return config.model_type in MODEL_TYPES and not getattr(config, "is_decoder", False) and positions == "absolute"
