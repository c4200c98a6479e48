"""Builds a fleet in parts, here or on a Ray cluster: every target of every checkpoint is one part."""
