"""optimum-intel: the model class, pooled by hand."""

# needs: optimum-intel==2.2.0 openvino==2026.4.1 torch==2.15.0

from collections.abc import Sequence

from lane import Embed, Job, lane, main

SETTING = "row 0 of the states (CLS), divided by its norm; the prompt by hand"
HINT = 'ov_config={"INFERENCE_PRECISION_HINT": "f32"}'


def opened(job: Job, **options: object) -> tuple[Embed, Embed]:
    """Return functions that embed texts with what it loads from the folder."""
    import torch
    from optimum.intel import OVModelForFeatureExtraction
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.folder)
    model = OVModelForFeatureExtraction.from_pretrained(
        job.folder, ov_config={"INFERENCE_PRECISION_HINT": "f32"}, **options
    )

    def embed(texts: Sequence[str]) -> object:
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return torch.nn.functional.normalize(model(**tokens).last_hidden_state[:, 0]).tolist()

    return embed, lambda texts: embed([job.prompt + text for text in texts])


@lane("OVModelForFeatureExtraction", "openvino-fp32", f"{HINT}; {SETTING}")
def fp32(job: Job) -> tuple[Embed, Embed]:
    """The file that it finds by itself."""
    return opened(job)


@lane("OVModelForFeatureExtraction, int8", "openvino-int8", f"file_name; {HINT}; {SETTING}")
def int8(job: Job) -> tuple[Embed, Embed]:
    """The int8 file by its name."""
    return opened(job, file_name=job.files["openvino-int8"])


if __name__ == "__main__":
    main("optimum-intel", "transformers", "openvino")
