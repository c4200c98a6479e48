"""Builds a release from a recipe, step by step: each step is kept if nothing that it depends on has changed."""
