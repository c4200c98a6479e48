"""txtai: a folder as path, and an ONNX file as path."""

# needs: txtai==9.14.0 onnxruntime==1.32.0 sentence-transformers==6.2.0 torch==2.15.0

from lane import Embed, Job, lane, main


def opened(**config: object) -> tuple[Embed, Embed]:
    """Return its function for texts as data and as queries."""
    from txtai import Embeddings

    model = Embeddings(**config)
    return (
        lambda texts: model.batchtransform(list(texts), "data"),
        lambda texts: model.batchtransform(list(texts), "query"),
    )


@lane("path: the folder")
def folder(job: Job) -> tuple[Embed, Embed]:
    """It chooses by the folder's files how vectors are pooled."""
    return opened(path=job.folder, gpu=False)


@lane("path: the folder, sentence-transformers", setting='method="sentence-transformers"')
def sentence_transformers(job: Job) -> tuple[Embed, Embed]:
    """Through sentence-transformers."""
    return opened(path=job.folder, method="sentence-transformers", gpu=False)


@lane(
    "path: the ONNX file",
    "onnx-fp32",
    'tokenizer=…/tokenizer.json, maxlength; instructions={"query": …}',
    "it takes the mean of every bare ONNX file",
)
def onnx(job: Job) -> tuple[Embed, Embed]:
    """The bare file."""
    return opened(
        path=job.file("onnx-fp32"),
        tokenizer=f"{job.folder}/tokenizer.json",
        maxlength=job.max_tokens,
        instructions={"query": job.prompt},
        gpu=False,
    )


if __name__ == "__main__":
    main("txtai", "transformers", "onnxruntime")
