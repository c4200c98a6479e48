"""Static 8-bit quantization: an encoder read from its graph, folded, scaled, split, rounded, and written again."""
