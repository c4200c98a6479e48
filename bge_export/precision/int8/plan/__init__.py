"""Plans how each input of a layer is quantized to 8 bits: ranges, scales, splits."""
