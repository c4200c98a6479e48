"""Embeds texts as a folder of bge-export says: python embed.py FOLDER [query|document] < texts > vectors."""

import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

folder, use = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
contract = json.loads((folder / "embedding.json").read_text("utf-8"))
file = next(one for one in contract["files"] if one["target"] == "onnx-fp32")
states = next(name for name, kind in file["outputs"].items() if kind == "token states")

tokenizer, padding = Tokenizer.from_file(str(folder / "tokenizer.json")), contract["tokens"]["padding"]
tokenizer.enable_padding(direction="right", pad_id=padding["id"], pad_token=padding["token"])
prompt = contract["text"]["prompts"][use] if use else ""
batch = tokenizer.encode_batch([prompt + json.loads(line) for line in sys.stdin])

mask = np.asarray([one.attention_mask for one in batch])
given = {"input_ids": np.asarray([one.ids for one in batch]), "attention_mask": mask, "token_type_ids": 0 * mask}
session = InferenceSession(folder / file["file"], providers=["CPUExecutionProvider"])
(tokens,) = session.run([states], {name: given[name] for name in file["inputs"]})

first, last = tokens[:, 0], tokens[np.arange(len(tokens)), mask.sum(1) - 1]
mean = (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
vectors = {"cls": first, "mean": mean, "last": last}[contract["embedding"]["pooling"]]
if contract["embedding"]["normalize"]:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
for vector in vectors.tolist():
    print(json.dumps(vector))
