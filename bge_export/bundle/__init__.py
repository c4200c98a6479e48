"""A folder in the layout of a Hub repository: its manifest, its integrity, and how it comes to stand under its name."""
