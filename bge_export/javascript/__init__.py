"""The JavaScript clients that a folder is proven in: which versions, where they are installed, how they are driven."""
