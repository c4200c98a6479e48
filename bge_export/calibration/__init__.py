"""What texts do to an encoder: ranges, moments and Hessians of its inputs, for every quantized precision."""
