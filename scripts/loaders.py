"""Embeds texts as users of a library do, and compares: `loaders.py LIBRARY FOLDER TEXTS REFERENCE`."""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

import numpy as np
from numpy.typing import NDArray

NEEDED = 0.999999


def by_transformers(folder: str, texts: list[str]) -> NDArray[np.float32]:
    """Return the first token's state, normalised, [N, D]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        rows = model(**tokens).last_hidden_state[:, 0]
        return np.asarray(torch.nn.functional.normalize(rows))


def by_sentence_transformers(folder: str, texts: list[str]) -> NDArray[np.float32]:
    """Return what its modules give, [N, D]."""
    from sentence_transformers import SentenceTransformer

    return np.asarray(SentenceTransformer(folder, device="cpu").encode(texts))


def by_flag_embedding(folder: str, texts: list[str]) -> NDArray[np.float32]:
    """Return what its model for BGE gives, [N, D]."""
    from FlagEmbedding import FlagModel

    return np.asarray(FlagModel(folder, use_fp16=False, devices=["cpu"]).encode(texts))


LOADERS = {
    "transformers": by_transformers,
    "sentence-transformers": by_sentence_transformers,
    "FlagEmbedding": by_flag_embedding,
}


def main() -> int:
    """Print the smallest cosine, and return the exit status."""
    library, folder, texts_path, reference = sys.argv[1:]
    lines = [json.loads(line) for line in Path(texts_path).read_text("utf-8").splitlines()]
    with np.load(reference) as file:
        wanted = next(file[name] for name in file.files if file[name].ndim == 2 and len(file[name]) == len(lines))
    rows = LOADERS[library](folder, [line["text"] for line in lines]).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    cosines = (rows * wanted).sum(1) / (norms * np.linalg.norm(wanted.astype(np.float64), axis=1))
    worst = int(np.argmin(cosines))
    passed = bool(cosines[worst] >= NEEDED) and bool(np.abs(norms - 1).max() < 1e-5)
    version = importlib.metadata.version(library)
    print(
        f"{library} {version}: {len(lines)} texts, smallest cosine {cosines[worst]:.10f} ({lines[worst]['id']}), norms "
        f"{norms.min():.7f} to {norms.max():.7f}: {'passed' if passed else f'REFUSED, needed {NEEDED}'}"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
