"""Task scores of artifacts, as facts."""
