"""transformers 4: AutoModel, pooled by hand."""

# needs: transformers==4.57.6 torch==2.15.0

from collections.abc import Sequence

from lane import Embed, Job, lane, main


@lane("AutoModel", setting="row 0 of the states (CLS), divided by its norm; the prompt by hand")
def auto_model(job: Job) -> tuple[Embed, Embed]:
    """The first token's state, divided by its norm."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(job.folder), AutoModel.from_pretrained(job.folder).eval()

    def embed(texts: Sequence[str]) -> object:
        with torch.no_grad():
            tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
            return torch.nn.functional.normalize(model(**tokens).last_hidden_state[:, 0]).tolist()

    return embed, lambda texts: embed([job.prompt + text for text in texts])


if __name__ == "__main__":
    main("transformers", "torch")
