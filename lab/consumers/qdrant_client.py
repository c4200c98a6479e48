"""qdrant-client in local mode: vectors of a custom fastembed model, read back from a collection."""

# needs: qdrant-client[fastembed]==1.20.0 fastembed==0.9.1

from collections.abc import Sequence

from lane import Embed, Job, lane, main


@lane("local mode, fastembed", "onnx-fp32", "add_custom_model as in fastembed; the prompt by hand")
def local(job: Job) -> tuple[Embed, Embed]:
    """Documents are embedded by the client itself, on upload."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType
    from qdrant_client import QdrantClient, models

    TextEmbedding.add_custom_model(
        model="lab/fp32",
        pooling=PoolingType.CLS,
        normalization=True,
        sources=ModelSource(hf="lab/fp32"),
        dim=job.dim,
        model_file=job.files["onnx-fp32"],
    )
    client = QdrantClient(":memory:")
    options = {"specific_model_path": job.folder, "threads": 1}

    def embed(texts: Sequence[str]) -> object:
        name = f"texts-{len(client.get_collections().collections)}"
        client.create_collection(name, models.VectorParams(size=job.dim, distance=models.Distance.COSINE))
        client.upsert(
            name,
            [
                models.PointStruct(id=number, vector=models.Document(text=text, model="lab/fp32", options=options))
                for number, text in enumerate(texts)
            ],
        )
        found = client.retrieve(name, list(range(len(texts))), with_vectors=True)
        return [point.vector for point in sorted(found, key=lambda point: point.id)]

    return embed, lambda texts: embed([job.prompt + text for text in texts])


if __name__ == "__main__":
    main("qdrant-client", "fastembed", "onnxruntime")
