"""fastembed: a custom model."""

# needs: fastembed==0.9.1

from lane import Embed, Job, lane, main

SETTING = "add_custom_model(pooling=CLS, normalization=True, model_file=…), specific_model_path; the prompt by hand"


def opened(job: Job, target: str) -> tuple[Embed, Embed]:
    """Return its function for texts, with and without the prompt."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"lab/{target}"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.CLS,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=job.dim,
        model_file=job.files[target],
    )
    model = TextEmbedding(name, specific_model_path=job.folder, threads=1)
    return lambda texts: model.embed(list(texts)), lambda texts: model.embed([job.prompt + text for text in texts])


@lane("custom model", "onnx-fp32", SETTING)
def fp32(job: Job) -> tuple[Embed, Embed]:
    """The fp32 file."""
    return opened(job, "onnx-fp32")


@lane("custom model, int8", "onnx-int8", SETTING)
def int8(job: Job) -> tuple[Embed, Embed]:
    """The int8 file."""
    return opened(job, "onnx-int8")


@lane("query_embed", "onnx-fp32", "as above, without the prompt by hand", "it puts nothing before a query")
def query_embed(job: Job) -> tuple[Embed, Embed]:
    """What its own function for queries does; the model is registered by the first lane."""
    from fastembed import TextEmbedding

    model = TextEmbedding("lab/onnx-fp32", specific_model_path=job.folder, threads=1)
    return lambda texts: model.passage_embed(list(texts)), lambda texts: model.query_embed(list(texts))


if __name__ == "__main__":
    main("fastembed", "onnxruntime")
