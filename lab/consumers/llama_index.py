"""LlamaIndex: HuggingFaceEmbedding, on sentence-transformers."""

# needs: llama-index-embeddings-huggingface==0.8.0 sentence-transformers==6.2.0 torch==2.15.0

from lane import Embed, Job, lane, main


def opened(job: Job, **options: object) -> tuple[Embed, Embed]:
    """Return its function for documents, and its function for a query for each text."""
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    model = HuggingFaceEmbedding(model_name=job.folder, device="cpu", **options)
    return (
        lambda texts: model.get_text_embedding_batch(list(texts)),
        lambda texts: [model.get_query_embedding(text) for text in texts],
    )


@lane("HuggingFaceEmbedding", setting="query_instruction")
def with_instruction(job: Job) -> tuple[Embed, Embed]:
    """With the folder's prompt, by hand."""
    return opened(job, query_instruction=job.prompt)


@lane("HuggingFaceEmbedding, no settings", fault="it replaces the folder's prompt by none")
def without_instruction(job: Job) -> tuple[Embed, Embed]:
    """What a user gets who gives only the folder."""
    return opened(job)


if __name__ == "__main__":
    main("llama-index-embeddings-huggingface", "sentence-transformers")
