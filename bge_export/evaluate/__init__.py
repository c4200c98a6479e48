"""Evaluation: task scores of artifacts, as facts without a verdict."""
