"""optimum-onnx: the model class, pooled by hand."""

# needs: optimum-onnx==0.1.0 onnxruntime==1.32.0 torch==2.15.0

from collections.abc import Sequence

from lane import Embed, Job, lane, main

SETTING = "row 0 of the states (CLS), divided by its norm; the prompt by hand"


def opened(job: Job, file: str) -> tuple[Embed, Embed]:
    """Return functions that embed texts with a file of the folder."""
    import torch
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.folder)
    model = ORTModelForFeatureExtraction.from_pretrained(job.folder, file_name=file)

    def embed(texts: Sequence[str]) -> object:
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return torch.nn.functional.normalize(model(**tokens).last_hidden_state[:, 0]).tolist()

    return embed, lambda texts: embed([job.prompt + text for text in texts])


@lane("ORTModelForFeatureExtraction", "onnx-fp32", SETTING)
def fp32(job: Job) -> tuple[Embed, Embed]:
    """The fp32 file."""
    return opened(job, "model.onnx")


@lane("ORTModelForFeatureExtraction, int8", "onnx-int8", f'file_name="model_quantized.onnx"; {SETTING}')
def int8(job: Job) -> tuple[Embed, Embed]:
    """The int8 file, by its name without the folder."""
    return opened(job, "model_quantized.onnx")


if __name__ == "__main__":
    main("optimum-onnx", "transformers", "onnxruntime")
