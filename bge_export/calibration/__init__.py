"""Calibration statistics of an encoder on texts: ranges, moments and Hessians, for every quantized precision."""
