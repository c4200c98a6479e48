"""Every "no": a report, limits and artifacts in, a verdict out."""
