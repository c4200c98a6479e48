"""How each input of a layer is brought onto 8 bits: ranges, scales, splits."""
