"""Reads and writes single files safely: bounded in size, whole or not at all, identified by digest."""
