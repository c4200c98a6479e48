"""Benchmarks: time, memory and size of artifacts measured side by side, as facts without a verdict.

files (bare) -> measure (shapes, memory, timing, ratios) -> report -> render
"""
