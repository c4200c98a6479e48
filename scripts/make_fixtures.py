"""Make the fixtures that stand in `parity_fixtures/`: the tiny checkpoint and the golden vectors.

    .venv/bin/python scripts/make_fixtures.py tiny
    .venv/bin/python scripts/make_fixtures.py golden parity_fixtures/tiny MODELS/bge-small-en

`tiny` writes a BERT small enough to commit and nasty enough to catch mistakes: like the real model it has a few
outlier channels after the attention LayerNorm and one outlier neuron a layer before the second feed-forward matrix,
weights that float16 holds exactly, and a CLS embedding far from the mean. Every number comes from integers drawn by
`RandomState`, whose stream numpy has frozen, scaled and rounded to float16 by IEEE arithmetic: so the bytes are the
same on every processor and with every torch. Its vocabulary comes from the texts; new texts want a new `tiny`, then
a new `golden`.

`golden` states what PyTorch says of the texts, in plain transformers and one text at a time. It does not import
the package's reference or pooling: a mistake in those must not find its way in here.
"""

import argparse
import json
import platform
import string
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import save
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from bge_export.checkpoint.opening import open_checkpoint
from bge_export.heads.dense import dense_head
from bge_export.texts.corpus import builtin_corpus

FIXTURES = Path(__file__).resolve().parent.parent / "parity_fixtures"
TEXTS = FIXTURES / "texts.jsonl"
TINY = FIXTURES / "tiny"
GOLDEN = FIXTURES / "golden"

SEED = 20241124
HIDDEN, INTERMEDIATE, LAYERS, HEADS, MAX_TOKENS = 64, 128, 3, 4, 512
OUTLIER_CHANNELS = (7, 29, 50)
OUTLIER_NEURONS = (17, 90, 41)  # one a layer
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SUFFIXES = ("s", "es", "ed", "ing", "er", "ly", "est", "ness", "tion", "ment", "able", "ers")
WORDS = 300
QUERY_PREFIX = "Represent this sentence for searching relevant passages: "


def read_texts(path: Path = TEXTS) -> dict[str, str]:
    """Return id -> text of every line of the file of texts."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {row["id"]: row["text"] for row in rows}


# ---------------------------------------------------------------------------------------------------- tokenizer


def vocabulary(texts: Sequence[str]) -> list[str]:
    """Return the WordPiece tokens: special ones, every character of the texts, suffixes, frequent English words.

    All characters are there, at the start of a word and inside one where they occur so, because a token the
    vocabulary lacks turns its whole word into [UNK] and makes different texts equal.
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = [word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    letters = set(string.ascii_lowercase + string.digits)
    starts = {word[0] for word in words} | letters | set(string.punctuation)
    inside = {letter for word in words for letter in word[1:]} | letters
    counts = Counter(word for word in words if len(word) > 1 and word.isascii() and word.isalpha() and len(word) <= 20)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
    continuations = sorted({f"##{letter}" for letter in inside} | {f"##{suffix}" for suffix in SUFFIXES})
    return [*SPECIAL_TOKENS, *sorted(starts), *continuations, *sorted(frequent)]


def tokenizer_json(vocab: Sequence[str]) -> dict[str, Any]:
    """Return the content of `tokenizer.json`, section by section as in the real checkpoint.

    It is written out rather than saved by the library, whose spelling changes from version to version.
    """
    ids = {token: index for index, token in enumerate(vocab)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    start, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    first, second = ({"Sequence": {"id": name, "type_id": type_id}} for name, type_id in (("A", 0), ("B", 1)))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **flags} for token in SPECIAL_TOKENS],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first, end],
            "pair": [start, first, end, second, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


# ------------------------------------------------------------------------------------------------------ weights


def normal(random: np.random.RandomState, shape: tuple[int, ...], std: float) -> NDArray[np.float64]:
    """Return nearly normal numbers: the sum of four uniform integers, scaled to the standard deviation."""
    total = random.randint(-512, 513, size=(4, *shape)).sum(axis=0)
    return np.asarray(total * (std / (4 * (1025**2 - 1) / 12) ** 0.5))


def layer_weights(random: np.random.RandomState, layer: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the weights of one encoder layer, its outlier channels and its outlier neuron among them."""
    outliers, neuron = list(OUTLIER_CHANNELS), OUTLIER_NEURONS[layer]
    # Logits of standard deviation 1.7: sharp enough that single tokens tell, soft enough that all of them do.
    for name, std in (("query", 0.16), ("key", 0.16), ("value", 0.17)):
        yield f"attention.self.{name}.weight", normal(random, (HIDDEN, HIDDEN), std)
        yield f"attention.self.{name}.bias", normal(random, (HIDDEN,), 0.2)
    yield "attention.output.dense.weight", normal(random, (HIDDEN, HIDDEN), 0.1)
    yield "attention.output.dense.bias", normal(random, (HIDDEN,), 0.1)

    gain, bias = 1 + normal(random, (HIDDEN,), 0.1), normal(random, (HIDDEN,), 0.1)
    gain[outliers], bias[outliers] = 4.0, [6.0, -5.5, 7.0]
    yield "attention.output.LayerNorm.weight", gain
    yield "attention.output.LayerNorm.bias", bias

    up, up_bias = normal(random, (INTERMEDIATE, HIDDEN), 0.1), normal(random, (INTERMEDIATE,), 0.2)
    up[:, outliers] *= 0.1  # or every neuron would see nothing but the outliers
    up_bias[neuron] = 10.0
    yield "intermediate.dense.weight", up
    yield "intermediate.dense.bias", up_bias

    down = normal(random, (HIDDEN, INTERMEDIATE), 0.2)
    down[:, neuron] *= 0.07
    yield "output.dense.weight", down
    yield "output.dense.bias", normal(random, (HIDDEN,), 0.1)

    gain, bias = 1 + normal(random, (HIDDEN,), 0.1), normal(random, (HIDDEN,), 0.1)
    gain *= 2.2  # the outliers take up most of the variance that the norm divides by
    gain[outliers] = 0.2
    yield "output.LayerNorm.weight", gain
    yield "output.LayerNorm.bias", bias


def weights(vocab_size: int) -> dict[str, torch.Tensor]:
    """Return every weight of the tiny model by its name in a checkpoint; float32 that float16 holds exactly."""
    random = np.random.RandomState(SEED)
    arrays = {
        "embeddings.position_embeddings.weight": normal(random, (MAX_TOKENS, HIDDEN), 0.5),
        "embeddings.token_type_embeddings.weight": normal(random, (2, HIDDEN), 0.4),
        "embeddings.LayerNorm.weight": 1 + normal(random, (HIDDEN,), 0.1),
        "embeddings.LayerNorm.bias": normal(random, (HIDDEN,), 0.1),
    }
    for layer in range(LAYERS):
        arrays |= {f"encoder.layer.{layer}.{name}": array for name, array in layer_weights(random, layer)}
    # Last, so that a change of the vocabulary leaves the rest as it was.
    arrays["embeddings.word_embeddings.weight"] = normal(random, (vocab_size, HIDDEN), 1.0)
    return {name: torch.from_numpy(arrays[name].astype(np.float16).astype(np.float32)) for name in sorted(arrays)}


# --------------------------------------------------------------------------------------------------------- tiny


def config_json(vocab_size: int) -> dict[str, Any]:
    """Return the content of `config.json`, key by key as in the real checkpoint."""
    return {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": None,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": MAX_TOKENS,
        "model_type": "bert",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": vocab_size,
    }


def sentence_transformers_files() -> dict[str, Any]:
    """Return the files of sentence-transformers, in the old schema that the published checkpoints still have."""
    modes = {"cls_token": True, "mean_tokens": False, "max_tokens": False, "mean_sqrt_len_tokens": False}
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": MAX_TOKENS, "do_lower_case": True},
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "2.2.2", "transformers": "4.28.1", "pytorch": "1.13.0+cu117"},
            "prompts": {"query": QUERY_PREFIX},
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": HIDDEN,
            **{f"pooling_mode_{mode}": on for mode, on in modes.items()},
        },
    }


def tokenizer_files() -> dict[str, Any]:
    """Return the two files that stand beside `tokenizer.json`."""
    names = {"cls": "[CLS]", "mask": "[MASK]", "pad": "[PAD]", "sep": "[SEP]", "unk": "[UNK]"}
    special = {f"{name}_token": token for name, token in names.items()}
    return {
        "special_tokens_map.json": special,
        "tokenizer_config.json": {
            **special,
            "clean_up_tokenization_spaces": True,
            "do_basic_tokenize": True,
            "do_lower_case": True,
            "model_max_length": MAX_TOKENS,
            "never_split": None,
            "strip_accents": None,
            "tokenize_chinese_chars": True,
            "tokenizer_class": "BertTokenizer",
        },
    }


def write_tiny(folder: Path) -> None:
    """Write the tiny checkpoint; the same texts give the same bytes."""
    vocab = vocabulary(list(read_texts().values()))
    tensors = weights(len(vocab))
    config = config_json(len(vocab))
    # Loading them here is the proof that names and shapes are those of a BERT without its pooler.
    BertModel(BertConfig(**config), add_pooling_layer=False).load_state_dict(tensors)
    files = {"config.json": config, **tokenizer_files(), **sentence_transformers_files()}
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_text(folder / name, json.dumps(content, indent=2) + "\n")
    write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in vocab))
    write_text(folder / "tokenizer.json", json.dumps(tokenizer_json(vocab), ensure_ascii=False))
    # `save_file` would leave a file that only its owner can read.
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with the same line ends on every system."""
    path.write_text(text, encoding="utf-8", newline="\n")


# ------------------------------------------------------------------------------------------------------- golden


def states(folder: Path, texts: Sequence[str]) -> Iterator[torch.Tensor]:
    """Yield the last hidden state [S, D] of every text: eager, in float32, alone and so without padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", add_pooling_layer=False
    ).eval()
    with torch.inference_mode():
        for text in texts:
            batch = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            yield model(**batch).last_hidden_state[0]


def normalized(rows: Iterable[torch.Tensor]) -> NDArray[np.float32]:
    """Return the rows [N, D], each divided by its L2 norm."""
    return np.asarray(torch.nn.functional.normalize(torch.stack(list(rows)), dim=1).numpy(), dtype=np.float32)


def embed(folder: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the embeddings [N, D] that sentence-transformers would, written out with nothing but transformers."""
    return normalized(state[0] for state in states(folder, texts))


def write_golden(folder: Path, out: Path) -> Path:
    """Write the golden vectors of one checkpoint and where they come from; return the file of vectors."""
    checkpoint, corpus = open_checkpoint(folder), builtin_corpus()
    head, longest = dense_head(checkpoint.spec), checkpoint.spec.inputs.max_tokens
    if (checkpoint.model_type, head.pooling, head.normalize, longest) != ("bert", "cls", True, 512):
        raise SystemExit(
            f"{folder}: golden vectors are made for BERT, CLS, normalised, 512 tokens; this is {checkpoint.spec}."
        )
    vectors = embed(folder, [text.text for text in corpus.texts])
    provenance = {
        "checkpoint": {"name": checkpoint.source, "digest": checkpoint.digest, "spec": asdict(checkpoint.spec)},
        "texts": {"name": corpus.name, "digest": corpus.digest, "count": len(corpus.texts)},
        "vectors": {"shape": list(vectors.shape), "dtype": str(vectors.dtype)},
        "method": "transformers AutoModel, eager attention, float32, one text at a time without padding; "
        "AutoTokenizer with truncation to 512; last_hidden_state[:, 0] divided by its L2 norm",
        "versions": {
            "python": platform.python_version(),
            **{library.__name__: library.__version__ for library in (torch, transformers, tokenizers, np)},
        },
        "processor": platform.machine(),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{checkpoint.source}@{checkpoint.digest[:12]}.npz"
    np.savez(path, ids=np.array([text.id for text in corpus.texts]), vectors=vectors)
    write_text(path.with_suffix(".json"), json.dumps(provenance, indent=2) + "\n")
    return path


# ------------------------------------------------------------------------------------------------------ command


def content(folder: Path) -> dict[str, bytes]:
    """Return relative name -> bytes of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refuse_unless(true: bool, what: str) -> None:
    """Stop with the promise that the tiny checkpoint does not keep."""
    if not true:
        raise SystemExit(f"the tiny checkpoint is not as it must be: {what}")


def check_tiny(folder: Path) -> None:
    """Measure the tiny checkpoint and stop unless it is as its tests and users assume."""
    texts = list(read_texts().values())
    with tempfile.TemporaryDirectory() as again:
        write_tiny(Path(again))
        refuse_unless(content(Path(again)) == content(folder), "a second run gives other bytes")

    tokenizer, plain = AutoTokenizer.from_pretrained(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [plain.encode(text).ids for text in texts]
    refuse_unless([tokenizer(text)["input_ids"] for text in texts] == ids, "AutoTokenizer and tokenizer.json differ")

    # One text of each sequence of tokens: case variants, for one, are the same text to this tokenizer.
    distinct = list({tuple(row[:511]): text for row, text in zip(ids, texts, strict=True)}.values())
    cls, mean = embed(folder, distinct), normalized(state.mean(dim=0) for state in states(folder, distinct))
    to_mean = (cls * mean).sum(axis=1)
    pairs = (cls @ cls.T)[np.triu_indices(len(cls), 1)]
    size = sum(len(data) for data in content(folder).values())
    print(f"{size:,} bytes, {len(distinct)} texts that tokenise apart, {sum(len(row) > 512 for row in ids)} truncated")
    print(f"cosine of CLS and mean: median {np.median(to_mean):.3f}, largest {to_mean.max():.3f}")
    print(f"cosine of two texts: median {np.median(pairs):.3f}, above 0.95: {(pairs > 0.95).mean():.4%}")
    refuse_unless(size < 1_000_000, "it is larger than 1 MB")
    refuse_unless(bool(np.isfinite(cls).all()), "an embedding is not finite")
    refuse_unless(float(np.mean(to_mean < 0.9)) > 0.8, "CLS and mean embeddings are too close to tell apart")
    refuse_unless(float(np.mean(pairs < 0.95)) > 0.99, "the embeddings of different texts are too close")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny", help="write the tiny checkpoint")
    golden = commands.add_parser("golden", help="write the golden vectors of checkpoints")
    golden.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a checkpoint in a local folder")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # one order of summation, on whatever machine
    if options.command == "tiny":
        write_tiny(TINY)
        check_tiny(TINY)
    else:
        for folder in options.folders:
            print(write_golden(folder.resolve(), GOLDEN).name)


if __name__ == "__main__":
    main()
