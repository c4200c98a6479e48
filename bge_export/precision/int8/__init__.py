"""Static 8-bit quantization: reads an encoder from its graph, plans, rounds and writes it."""
