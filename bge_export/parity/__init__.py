"""Parity with the checkpoint: measure embeddings (`measure`), judge them by limits (`gate`), show both (`show`)."""
