"""FlagEmbedding: its model for BGE."""

# needs: FlagEmbedding==1.4.2 transformers<5 torch==2.15.0

from lane import Embed, Job, lane, main


@lane("FlagModel", setting="query_instruction_for_retrieval")
def flag_model(job: Job) -> tuple[Embed, Embed]:
    """The model class that its documentation gives for BGE."""
    from FlagEmbedding import FlagModel

    model = FlagModel(job.folder, query_instruction_for_retrieval=job.prompt, use_fp16=False, devices=["cpu"])
    return model.encode, model.encode_queries


@lane("FlagModel, no instruction", fault="it does not read the folder's prompts")
def without_instruction(job: Job) -> tuple[Embed, Embed]:
    """What a user gets who gives only the folder."""
    from FlagEmbedding import FlagModel

    model = FlagModel(job.folder, use_fp16=False, devices=["cpu"])
    return model.encode, model.encode_queries


if __name__ == "__main__":
    main("FlagEmbedding", "transformers")
