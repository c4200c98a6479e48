"""The texts that artifacts are measured on, and their tokens."""
