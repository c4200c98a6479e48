"""Chooses the variant to write: tries variants on probes, from fast to accurate."""
