"""LangChain: HuggingFaceEmbeddings, on sentence-transformers."""

# needs: langchain-huggingface==1.2.3 sentence-transformers==6.2.0 torch==2.15.0

from lane import Embed, Job, lane, main


def opened(job: Job, **options: object) -> tuple[Embed, Embed]:
    """Return its function for documents, and its function for a query for each text."""
    from langchain_huggingface import HuggingFaceEmbeddings

    model = HuggingFaceEmbeddings(model_name=job.folder, model_kwargs={"device": "cpu"}, **options)
    return lambda texts: model.embed_documents(list(texts)), lambda texts: [model.embed_query(text) for text in texts]


@lane("HuggingFaceEmbeddings", setting='query_encode_kwargs={"prompt_name": "query"}')
def with_prompt(job: Job) -> tuple[Embed, Embed]:
    """With the name of the folder's prompt."""
    return opened(job, query_encode_kwargs={"prompt_name": "query"})


@lane("HuggingFaceEmbeddings, no settings", fault="embed_query leaves the prompt out unless it is named")
def without_prompt(job: Job) -> tuple[Embed, Embed]:
    """What a user gets who gives only the folder."""
    return opened(job)


if __name__ == "__main__":
    main("langchain-huggingface", "sentence-transformers")
