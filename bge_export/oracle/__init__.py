"""The checkpoint's own embeddings as reference. Shares no code with `heads` and `texts.tokens`, which it checks."""
