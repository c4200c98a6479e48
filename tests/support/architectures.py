"""Small checkpoints of several architectures, each with the tokenizer and the position offset of its family.

Written by transformers and tokenizers themselves, as a user's checkpoint would be. The weights are drawn larger
than an initialiser would, so that attention and every token tell in the embeddings.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_letters, digits
from typing import Any, Literal

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

Kind = Literal["bert", "roberta", "xlm-roberta", "distilbert", "mpnet"]
PoolingName = Literal["cls", "mean", "last"]

MAX_TOKENS = 128
HIDDEN, HEADS, LAYERS, INTERMEDIATE = 32, 4, 2, 64

TRAINING = (
    "The last ferry to the island leaves at half past nine.",
    "the dog sleeps in the garden and the cat sleeps in the house",
    "hello world, water and bread; a question about the weather?",
    "A search engine compares the vectors of questions and passages.",
    "Bees find their way home by the position of the sun. 0123456789",
    "今天的天气很好，我们去河边走走吧。",
)
"""What the tokenizers know; other characters become unknown tokens, or bytes."""

SAMPLES = (
    "hello world",
    "The last ferry leaves at nine.",
    "THE LAST FERRY LEAVES AT NINE.",
    "the dog sleeps in the house",
    "the cat sleeps in the house",
    "  two\t words \n on  lines  ",
    "",
    ".",
    "今天天气很好",
    "Café naïve, 12 questions",
    "an emoji 🙂 and an unknown ☃",
    "[CLS] the [MASK] garden </s> <mask>",
    "water and bread " * 60,
)
"""Texts on which two readers of a tokenizer can be compared: white space, case, accents, special tokens, too long."""


@dataclass(frozen=True)
class Family:
    """What one kind of checkpoint is made of.

    Attributes:
        tokenizer: makes the tokenizer.
        special: the special tokens by their names in `tokenizer_config.json`.
        settings: the other keys of `tokenizer_config.json`.
        model: makes the model for a vocabulary of a size.
        new_schema: whether the sentence-transformers files are those of 5.4 and later.
    """

    tokenizer: Callable[[], Tokenizer]
    special: Mapping[str, str]
    settings: Mapping[str, Any]
    model: Callable[[int], PreTrainedModel]
    new_schema: bool


def build(kind: Kind, folder: Path, pooling: PoolingName) -> Path:
    """Write a seeded checkpoint of a kind into a folder and return the folder.

    Args:
        kind: the architecture.
        folder: where to write; made if it is not there.
        pooling: what the sentence-transformers files declare.
    """
    family = FAMILIES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = family.tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = dict(family.special)
    _write(folder / "special_tokens_map.json", special)
    _write(folder / "tokenizer_config.json", {**special, **family.settings, "model_max_length": MAX_TOKENS})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(list(FAMILIES).index(kind))
        model = family.model(tokenizer.get_vocab_size())
        enlarge(model)
    config = model.config.to_dict() | {"architectures": [type(model).__name__], "dtype": "float32"}
    _write(folder / "config.json", {key: value for key, value in config.items() if value is not None})
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    lower_case = bool(family.settings.get("do_lower_case"))
    files = _new_files(pooling) if family.new_schema else _old_files(pooling, lower_case)
    for name, content in files.items():
        _write(folder / name, content)
    return folder


SCALES = {"word_embeddings": 1.0, "position_embeddings": 0.5, "token_type_embeddings": 0.3, "attention_bias": 1.0}


def enlarge(model: PreTrainedModel) -> None:
    """Draw the weights at a scale where attention is neither flat nor a choice of one token."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            scale = next((scale for part, scale in SCALES.items() if part in name), None)
            if "LayerNorm" in name or "layer_norm" in name:
                parameter.add_(noise * 0.1)
            elif scale is not None:
                parameter.copy_(noise * scale)
            elif parameter.dim() == 2:
                parameter.copy_(noise * 1.4 * parameter.shape[1] ** -0.5)
            else:
                parameter.copy_(noise * 0.1)


# --------------------------------------------------------------------------------------------------- tokenizers
# The vocabularies of WordPiece and Unigram are written down, not trained: their trainers break ties by chance.


def _words() -> list[str]:
    """Return the words of the texts that are made of letters alone, in lower case."""
    return sorted({word for text in TRAINING for word in text.lower().split() if word.isascii() and word.isalpha()})


def _characters() -> list[str]:
    return sorted({letter for text in (*TRAINING, ascii_letters, digits) for letter in text if letter.strip()})


def _wordpiece(special: list[str], processor: Callable[[Tokenizer], processors.PostProcessor]) -> Tokenizer:
    letters = [letter for letter in _characters() if letter == letter.lower()]
    inside = [f"##{letter}" for letter in letters if letter.isascii() and letter.isalnum()]
    tokens = dict.fromkeys([*special, *letters, *inside, "##s", "##ing", *_words()])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processor(tokenizer)
    return tokenizer


def _bert_tokenizer() -> Tokenizer:
    return _wordpiece(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        lambda tokenizer: processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
        ),
    )


def _mpnet_tokenizer() -> Tokenizer:
    tokenizer = _wordpiece(["<s>", "<pad>", "</s>", "[UNK]"], _roberta_processor)
    # The mask takes the space before it along, and stands last, as in the real vocabulary.
    tokenizer.add_special_tokens([_mask_token()])
    return tokenizer


def _roberta_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.add_special_tokens([_mask_token()])
    tokenizer.post_processor = _roberta_processor(tokenizer)
    return tokenizer


def _xlm_roberta_tokenizer() -> Tokenizer:
    """Unigram pieces behind the four ids of fairseq: <s> 0, <pad> 1, </s> 2, <unk> 3; the mask last."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    capitalised = [word.capitalize() for word in _words()]
    # Whole words are likelier than their letters, so that a word known is one piece and another falls apart.
    scores = {"\u2581": -4.0} | dict.fromkeys(_characters(), -6.0)
    scores |= {f"\u2581{word}": -7.0 for word in [*_words(), *capitalised]}
    vocabulary = [(token, 0.0) for token in special] + list(scores.items())
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*special, _mask_token()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _mask_token() -> AddedToken:
    return AddedToken("<mask>", lstrip=True, normalized=False, special=True)


def _roberta_processor(tokenizer: Tokenizer) -> processors.RobertaProcessing:
    ids = tokenizer.get_vocab()
    return processors.RobertaProcessing(("</s>", ids["</s>"]), ("<s>", ids["<s>"]), add_prefix_space=False)


# ------------------------------------------------------------------------------------------------------- models

SIZES: Mapping[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INTERMEDIATE,
}
# These count positions from the padding id + 1, so two positions more than tokens.
OFFSET_SIZES: Mapping[str, Any] = {
    **SIZES,
    "max_position_embeddings": MAX_TOKENS + 2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def _bert_model(vocab_size: int) -> PreTrainedModel:
    # Without its pooler, as bge-small-en is stored here; the others keep theirs, which no embedding uses.
    config = BertConfig(vocab_size=vocab_size, max_position_embeddings=MAX_TOKENS, pad_token_id=0, **SIZES)
    return BertModel(config, add_pooling_layer=False)


def _distilbert_model(vocab_size: int) -> PreTrainedModel:
    config = DistilBertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=MAX_TOKENS,
        dim=HIDDEN,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=INTERMEDIATE,
        pad_token_id=0,
    )
    return DistilBertModel(config)


def _roberta_model(vocab_size: int) -> PreTrainedModel:
    config = RobertaConfig(vocab_size=vocab_size, type_vocab_size=1, layer_norm_eps=1e-5, **OFFSET_SIZES)
    return RobertaModel(config)


def _xlm_roberta_model(vocab_size: int) -> PreTrainedModel:
    config = XLMRobertaConfig(vocab_size=vocab_size, type_vocab_size=1, layer_norm_eps=1e-5, **OFFSET_SIZES)
    return XLMRobertaModel(config)


def _mpnet_model(vocab_size: int) -> PreTrainedModel:
    config = MPNetConfig(vocab_size=vocab_size, layer_norm_eps=1e-5, **OFFSET_SIZES)
    return MPNetModel(config)


# --------------------------------------------------------------------------------------- sentence-transformers


def _old_files(pooling: PoolingName, lower_case: bool) -> dict[str, Any]:
    """Return the files up to 5.3: one boolean for each pooling."""
    flags = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"}
    others = ("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")
    modes = {flag: name == pooling for name, flag in flags.items()} | dict.fromkeys(others, False)
    return {
        "modules.json": _modules(*(f"sentence_transformers.models.{kind}" for kind in _MODULES)),
        "sentence_bert_config.json": {"max_seq_length": MAX_TOKENS, "do_lower_case": lower_case},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.7.0"}},
        "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, **modes, "include_prompt": True},
    }


def _new_files(pooling: PoolingName) -> dict[str, Any]:
    """Return the files from 5.4 on: the pooling is a name, and the tokenizer alone says the longest input."""
    return {
        "modules.json": _modules(
            "sentence_transformers.base.modules.transformer.Transformer",
            "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "sentence_transformers.base.modules.normalize.Normalize",
        ),
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
        },
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "6.0.0"},
            "model_type": "SentenceTransformer",
            "prompts": {"query": "query: ", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {
            "embedding_dimension": HIDDEN,
            "pooling_mode": {"cls": "cls", "mean": "mean", "last": "lasttoken"}[pooling],
            "include_prompt": True,
        },
    }


_MODULES = ("Transformer", "Pooling", "Normalize")


def _modules(*types: str) -> list[dict[str, Any]]:
    folders = ("", "1_Pooling", "2_Normalize")
    return [
        {"idx": index, "name": str(index), "path": path, "type": kind}
        for index, (path, kind) in enumerate(zip(folders, types, strict=True))
    ]


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


# --------------------------------------------------------------------------------------------------------- kinds

_BERT_SPECIAL = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}
_FAIRSEQ_SPECIAL = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}
_WORDPIECE_SETTINGS = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}

FAMILIES: Mapping[Kind, Family] = {
    "bert": Family(
        _bert_tokenizer,
        _BERT_SPECIAL,
        {**_WORDPIECE_SETTINGS, "tokenizer_class": "BertTokenizer"},
        _bert_model,
        new_schema=False,
    ),
    "roberta": Family(
        _roberta_tokenizer,
        _FAIRSEQ_SPECIAL,
        {"add_prefix_space": False, "tokenizer_class": "RobertaTokenizer"},
        _roberta_model,
        new_schema=False,
    ),
    "xlm-roberta": Family(
        _xlm_roberta_tokenizer,
        _FAIRSEQ_SPECIAL,
        {"tokenizer_class": "XLMRobertaTokenizer"},
        _xlm_roberta_model,
        new_schema=True,
    ),
    "distilbert": Family(
        _bert_tokenizer,
        _BERT_SPECIAL,
        {**_WORDPIECE_SETTINGS, "tokenizer_class": "DistilBertTokenizer"},
        _distilbert_model,
        new_schema=True,
    ),
    "mpnet": Family(
        _mpnet_tokenizer,
        _FAIRSEQ_SPECIAL | {"unk_token": "[UNK]"},
        {**_WORDPIECE_SETTINGS, "tokenizer_class": "MPNetTokenizer"},
        _mpnet_model,
        new_schema=False,
    ),
}
KINDS: tuple[Kind, ...] = tuple(FAMILIES)
