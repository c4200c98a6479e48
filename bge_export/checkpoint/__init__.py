"""A folder or a Hub id to a `Checkpoint`, every file checked before anything is built from it."""
