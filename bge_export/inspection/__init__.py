"""Looking closer: what a folder is, where an artifact drifts, what this machine can run."""
