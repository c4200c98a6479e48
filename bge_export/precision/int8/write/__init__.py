"""A quantized encoder as a graph."""
