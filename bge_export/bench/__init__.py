"""Time, memory and size of artifacts side by side, as facts: nothing is judged here.

files (bare) -> measure (shapes, memory, timing, ratios) -> report -> render
"""
