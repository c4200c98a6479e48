"""Checks programs in any language: whether they give the embeddings that a folder's contract says."""
