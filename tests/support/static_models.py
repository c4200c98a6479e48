"""Small static models with seeded tables, in the files of model2vec and of sentence-transformers' StaticEmbedding."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH = 16
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
UNKNOWN = 1
MODULE = "sentence_transformers.models.StaticEmbedding"
NEW_MODULE = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
NORMALIZE = "sentence_transformers.models.Normalize"
DENSE = "sentence_transformers.models.Dense"

TEXTS = (
    "That is a happy person",
    "a cat and a dog",
    "",
    "   ",
    "Zo\u00eb et Andr\u00e9 \U0001f389 tonight",
    "\u96e8\u5929\u7684\u5c71\u8def\u5f88\u6ed1",
    "\U0001f389",
    "the words [CLS] and [UNK] and [PAD]",
    "the river and the stone " * 300,
)
"""Among them none, unknown tokens alone, and more tokens than model2vec reads."""


def words() -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-\u00e9\u5929\u5c71"
    known = ["the", "cat", "and", "dog", "river", "stone", "happy", "person", "is", "that", "tonight"]
    return [*SPECIAL, *known, *letters, *(f"##{letter}" for letter in letters)]


def tokenizer(truncation: int | None = None) -> Tokenizer:
    """Return a WordPiece tokenizer that adds [CLS] and [SEP] unless it is told not to."""
    made = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words())}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[attr-defined]  # its stubs lack it
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = processors.TemplateProcessing(  # type: ignore[assignment, misc]  # untyped
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_padding(length=4)
    if truncation is not None:
        made.enable_truncation(truncation)
    return made


def table(seed: int = 0, rows: int | None = None) -> NDArray[np.float32]:
    shape = (len(words()) if rows is None else rows, WIDTH)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write_model2vec(
    folder: Path, *, normalize: bool = True, quantized: bool = False, modules: bool = True, **config: object
) -> Path:
    """Write a folder as `StaticModel.save_pretrained` does.

    Args:
        folder: where; it must not exist.
        normalize: whether vectors are divided by their norm.
        quantized: whether tokens share rows of integers, each with a weight of its own.
        modules: whether `modules.json` is written too.
        config: what else config.json says.
    """
    folder.mkdir(parents=True)
    tensors: dict[str, NDArray[np.generic]] = {"embeddings": table()}
    if quantized:
        random = np.random.default_rng(1)
        tensors = {
            "embeddings": random.integers(-127, 128, (30, WIDTH)).astype(np.int8),
            "mapping": random.integers(0, 30, len(words())),
            "weights": random.random(len(words())).astype(np.float32),
        }

    save_file(tensors, folder / "model.safetensors")
    tokenizer().save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", {"normalize": normalize, **config})
    if modules:
        write_modules(folder, MODULE, *([NORMALIZE] if normalize else []))
    return folder


def write_static_embedding(folder: Path, *after: str, inside: str = "", truncation: int | None = None) -> Path:
    """Write a folder as sentence-transformers saves a StaticEmbedding, without a config.json.

    Args:
        folder: where; it must not exist.
        after: the classes of the modules that follow; a Dense has seeded weights.
        inside: the folder of the module within it; older versions write "0_StaticEmbedding".
        truncation: the number of tokens after which its tokenizer cuts texts.
    """
    (folder / inside).mkdir(parents=True)
    save_file({"embedding.weight": table()}, folder / inside / "model.safetensors")
    tokenizer(truncation).save(str(folder / inside / "tokenizer.json"))
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "the ", "document": ""}})
    write_modules(folder, NEW_MODULE, *after, inside=inside)

    random = np.random.default_rng(2)
    for number, kind in enumerate(after, 1):
        if kind != DENSE:
            continue
        path = folder / f"{number}_Dense"
        path.mkdir()
        settings = {"in_features": WIDTH, "out_features": 8, "bias": True}
        write_json(path / "config.json", {**settings, "activation_function": "torch.nn.modules.activation.Tanh"})
        weights = {"linear.weight": random.standard_normal((8, WIDTH)), "linear.bias": random.standard_normal(8)}
        save_file({name: one.astype(np.float32) for name, one in weights.items()}, path / "model.safetensors")
    return folder


def write_modules(folder: Path, first: str, *after: str, inside: str = "") -> None:
    paths = [inside, *(f"{n}_{kind.rpartition('.')[2]}" for n, kind in enumerate(after, 1))]
    kinds = (first, *after)
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": kind}
        for n, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    write_json(folder / "modules.json", modules)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), "utf-8")


def change_tensors(folder: Path, changes: Mapping[str, NDArray[np.generic] | None]) -> None:
    """Replace tensors of a folder's weights; None removes one."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: one for name, one in tensors.items() if one is not None}, path)


def expected(folder: Path, text: str, *, model2vec: bool, normalize: bool, longest: int = 512) -> NDArray[np.float64]:
    """Return the vector of a text as model2vec or StaticEmbedding computes it, [D] in float64."""
    made = Tokenizer.from_file(str(next(folder.rglob("tokenizer.json"))))
    made.no_padding()
    made.enable_truncation(longest)
    ids = made.encode(text, add_special_tokens=False).ids
    if model2vec:
        ids = [one for one in ids if one != UNKNOWN]

    stored = load_file(next(folder.rglob("model.safetensors")))
    vectors = stored.get("embedding.weight", stored.get("embeddings")).astype(np.float64)
    rows = stored["mapping"][ids] if "mapping" in stored else ids
    states = vectors[rows] * (stored["weights"].astype(np.float64)[ids][:, None] if "weights" in stored else 1.0)

    mean = states.mean(axis=0) if ids else np.zeros(WIDTH)
    norm = float(np.linalg.norm(mean))
    return mean / norm if normalize and norm else mean
