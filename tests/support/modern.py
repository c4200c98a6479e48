"""Small seeded checkpoints of newer encoders and of decoders that embed texts, each with its own kind of tokenizer.

The tokenizer is made and saved by the class of transformers that the family's checkpoints name. Windows are short, so
that texts of the corpus are longer than them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from architectures import _characters, _new_files, _roberta_tokenizer, _words, enlarge
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

MAX_TOKENS = 128
WINDOW = 12

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DECODER = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": MAX_TOKENS}


SPECIAL = ("pad_token", "bos_token", "eos_token", "cls_token", "sep_token")


@dataclass(frozen=True)
class Modern:
    """One family.

    Attributes:
        model_type: the name in `config.json`.
        tokenizer: makes the tokenizer.
        pooling: what the sentence-transformers files declare.
        settings: the configuration, besides the vocabulary and the padding token.
        side: where the tokenizer pads.
    """

    model_type: str
    tokenizer: Callable[[], Any]
    pooling: Literal["cls", "mean", "last"]
    settings: Mapping[str, Any]
    side: Literal["left", "right"] = "right"


def build_modern(name: str, folder: Path, **changes: Any) -> Path:
    """Write a seeded checkpoint of a family into a folder and return the folder.

    Args:
        name: a key of `MODERN`.
        folder: where to write; made if it is not there.
        changes: settings of `config.json` in place of the family's.
    """
    family = MODERN[name]
    tokenizer = family.tokenizer()
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.save_pretrained(folder)
    saved = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**saved, "padding_side": family.side}), "utf-8")

    special = {f"{name}_id": getattr(tokenizer, f"{name}_id") for name in SPECIAL}
    ids = {"vocab_size": len(tokenizer), **{name: number for name, number in special.items() if number is not None}}
    config = transformers.AutoConfig.for_model(family.model_type, **{**ids, **family.settings, **changes})
    factory = transformers.AutoModelForTextEncoding if family.model_type == "t5" else transformers.AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(list(MODERN).index(name))
        model = factory.from_config(config)
        enlarge(model)

    tensors = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    declared = {**config.to_dict(), "architectures": [type(model).__name__], "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(declared), "utf-8")

    for file, content in _new_files(family.pooling).items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content), "utf-8")
    return folder


# --------------------------------------------------------------------------------------------------- tokenizers


def _bytes() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of byte-level BPE, without special tokens."""
    model = json.loads(_roberta_tokenizer().to_str())["model"]
    tokens = [token for token in model["vocab"] if not token.startswith("<")]
    return {token: number for number, token in enumerate(tokens)}, [tuple(pair) for pair in model["merges"]]


def _modernbert_tokenizer() -> Any:
    """Return byte-level BPE between [CLS] and [SEP], whose settings name the generic class."""
    vocabulary, merges = _bytes()
    settings = json.loads(_roberta_tokenizer().to_str())
    settings |= {"added_tokens": [], "post_processor": None}
    settings["model"] |= {"vocab": vocabulary, "merges": merges}
    tokenizer = Tokenizer.from_str(json.dumps(settings))

    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer.add_special_tokens(special)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = ("unk_token", "cls_token", "sep_token", "pad_token", "mask_token")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, special, strict=True)))


def _qwen_tokenizer() -> Any:
    """Return Qwen's byte-level BPE, which ends every text with the token that also pads."""
    vocabulary, merges = _bytes()
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    end = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    return tokenizer


def _pieces(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of BPE on characters that falls back to bytes, behind special tokens."""
    words = ["▁the", "▁dog"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("d", "o"), ("do", "g"), ("▁", "dog")]
    joined = [first + second for first, second in merges]
    tokens = dict.fromkeys([*special, *(f"<0x{number:02X}>" for number in range(256)), "▁", *_characters(), *joined])
    assert set(words) <= set(tokens)
    return {token: number for number, token in enumerate(tokens)}, merges


def _llama_tokenizer() -> Any:
    """Return Llama's BPE between <s> and </s>, padded by </s>."""
    vocabulary, merges = _pieces(["<unk>", "<s>", "</s>"])
    return transformers.LlamaTokenizer(
        vocab=vocabulary, merges=merges, pad_token="</s>", add_bos_token=True, add_eos_token=True
    )


def _gemma_tokenizer() -> Any:
    vocabulary, merges = _pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    return transformers.GemmaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True, add_eos_token=True)


def _unigram(special: list[str]) -> list[tuple[str, float]]:
    """Return pieces and their scores: whole words are likelier than their letters."""
    scores = {"▁": -4.0} | dict.fromkeys(_characters(), -6.0) | {f"▁{word}": -7.0 for word in _words()}
    return [(token, 0.0) for token in special] + list(scores.items())


def _deberta_tokenizer() -> Any:
    return transformers.DebertaV2Tokenizer(vocab=_unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]))


def _albert_tokenizer() -> Any:
    return transformers.AlbertTokenizer(vocab=_unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]))


def _camembert_tokenizer() -> Any:
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
    return transformers.CamembertTokenizer(vocab=_unigram(special))


def _t5_tokenizer() -> Any:
    return transformers.T5Tokenizer(vocab=_unigram(["<pad>", "</s>", "<unk>"]), extra_ids=0)


def _electra_tokenizer() -> Any:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [letter for letter in _characters() if letter == letter.lower()]
    inside = [f"##{letter}" for letter in letters if letter.isascii() and letter.isalnum()]
    tokens = dict.fromkeys([*special, *letters, *inside, *_words()])
    return transformers.ElectraTokenizer(vocab={token: number for number, token in enumerate(tokens)})


# ------------------------------------------------------------------------------------------------------ families

MODERN: Mapping[str, Modern] = {
    "modernbert": Modern(
        "modernbert",
        _modernbert_tokenizer,
        "cls",
        {
            **SIZES,
            "num_hidden_layers": 3,
            "max_position_embeddings": MAX_TOKENS,
            "local_attention": WINDOW,
            "global_attn_every_n_layers": 3,
        },
    ),
    "qwen3": Modern("qwen3", _qwen_tokenizer, "last", DECODER, side="left"),
    "gemma3": Modern(
        "gemma3_text",
        _gemma_tokenizer,
        "mean",
        {
            **DECODER,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "use_bidirectional_attention": True,
        },
    ),
    "mistral": Modern("mistral", _llama_tokenizer, "last", {**DECODER, "sliding_window": WINDOW}),
    "llama": Modern("llama", _llama_tokenizer, "last", DECODER, side="left"),
    "deberta-v2": Modern(
        "deberta-v2",
        _deberta_tokenizer,
        "mean",
        {
            **SIZES,
            "max_position_embeddings": MAX_TOKENS,
            "relative_attention": True,
            "position_buckets": WINDOW,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "electra": Modern(
        "electra", _electra_tokenizer, "cls", {**SIZES, "embedding_size": 16, "max_position_embeddings": MAX_TOKENS}
    ),
    "albert": Modern(
        "albert", _albert_tokenizer, "mean", {**SIZES, "embedding_size": 16, "max_position_embeddings": MAX_TOKENS}
    ),
    "camembert": Modern(
        "camembert",
        _camembert_tokenizer,
        "mean",
        {**SIZES, "max_position_embeddings": MAX_TOKENS + 2, "type_vocab_size": 1},
    ),
    "t5": Modern(
        "t5",
        _t5_tokenizer,
        "mean",
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"},
    ),
}
