"""sentence-transformers 5: PyTorch, and ONNX through optimum-onnx."""

# needs: sentence-transformers[onnx]==5.7.0 torch==2.15.0

from lane import Embed, Job, lane, main


def opened(job: Job, **options: object) -> tuple[Embed, Embed]:
    """Return its two functions for texts of documents and of queries."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job.folder, device="cpu", **options)
    return model.encode_document, model.encode_query


@lane("torch")
def torch(job: Job) -> tuple[Embed, Embed]:
    """The folder's PyTorch weights."""
    return opened(job)


@lane("onnx", "onnx-fp32", 'backend="onnx"')
def onnx(job: Job) -> tuple[Embed, Embed]:
    """The file that it finds by itself."""
    return opened(job, backend="onnx")


@lane("onnx, int8", "onnx-int8", 'backend="onnx", model_kwargs={"file_name": "onnx/model_quantized.onnx"}')
def onnx_int8(job: Job) -> tuple[Embed, Embed]:
    """The int8 file by its name."""
    return opened(job, backend="onnx", model_kwargs={"file_name": job.files["onnx-int8"]})


if __name__ == "__main__":
    main("sentence-transformers", "transformers", "onnxruntime")
