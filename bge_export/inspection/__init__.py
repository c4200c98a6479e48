"""Inspection: the content of a folder, the layer where an artifact drifts, the capabilities of this machine."""
