"""Turns token states into embeddings, in numpy, for artifacts only: the oracle has its own implementation."""
