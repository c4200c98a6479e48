"""Opens a folder or a Hub id as a `Checkpoint`; every file is checked before anything is built from it."""
