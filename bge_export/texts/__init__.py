"""Reads and tokenises the texts that artifacts are measured on."""
