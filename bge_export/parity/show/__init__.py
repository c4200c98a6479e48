"""Reports and verdicts for people."""
