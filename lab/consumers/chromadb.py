"""chromadb: its function on sentence-transformers, and vectors of a collection."""

# needs: chromadb==1.5.9 sentence-transformers==6.2.0 torch==2.15.0

from collections.abc import Sequence

from lane import Embed, Job, lane, main


def stored(job: Job) -> tuple[Embed, Embed]:
    """Return a function that reads vectors of documents back from a collection, and its function for queries."""
    import chromadb
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    function = SentenceTransformerEmbeddingFunction(model_name=job.folder, device="cpu", normalize_embeddings=True)
    client = chromadb.EphemeralClient()

    def embed(texts: Sequence[str]) -> object:
        collection = client.create_collection(f"texts-{len(client.list_collections())}", embedding_function=function)
        ids = [str(number) for number in range(len(texts))]
        collection.add(ids=ids, documents=list(texts))
        found = collection.get(ids=ids, include=["embeddings"])
        rows = dict(zip(found["ids"], found["embeddings"], strict=True))
        return [rows[one] for one in ids]

    return embed, function.embed_query


@lane("SentenceTransformerEmbeddingFunction", setting="the prompt by hand")
def with_prompt(job: Job) -> tuple[Embed, Embed]:
    """Documents through a collection, queries with the prompt before them."""
    documents, query = stored(job)
    return documents, lambda texts: query([job.prompt + text for text in texts])


@lane("SentenceTransformerEmbeddingFunction, embed_query", fault="embed_query leaves the prompt out")
def without_prompt(job: Job) -> tuple[Embed, Embed]:
    """What a user gets who gives only the folder."""
    documents, query = stored(job)
    return documents, lambda texts: query(list(texts))


if __name__ == "__main__":
    main("chromadb", "sentence-transformers")
