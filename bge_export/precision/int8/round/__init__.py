"""Rounds weights to integers, and assembles quantized layers from them."""
