"""What the checkpoint itself says. Shares nothing with `heads` and `texts.tokens`, which it is there to check."""
