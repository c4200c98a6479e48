"""Measure artifacts: embed texts in every runtime and record the facts. Nothing is judged here."""
