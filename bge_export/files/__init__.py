"""Single files, read and written safely: bounded, whole or not at all, tied to their bytes by digests."""
