"""The architectures that the tests of this package export and prove; every other is proven as it is met."""

TESTED = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "gemma3_text",
        "llama",
        "mistral",
        "modernbert",
        "mpnet",
        "qwen3",
        "roberta",
        "static-embedding",
        "t5",
        "xlm-roberta",
    }
)
"""Values of `model_type` in `config.json`."""


def untested_note(model_type: str) -> tuple[str, ...]:
    """Return what the user of another architecture should know, in one sentence; nothing for a tested one."""
    if model_type in TESTED:
        return ()
    return (
        f"The architecture {model_type!r} is not in the tested list: nobody here has tried it, and what stands for it "
        "is the check of this export alone.",
    )
