"""Builds a folder from a recipe."""
