"""Artifacts and texts in, facts out. Nothing is judged here."""
