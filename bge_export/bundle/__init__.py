"""Bundle: a folder laid out like a Hub repository, with a manifest, integrity checks and all-or-nothing output."""
