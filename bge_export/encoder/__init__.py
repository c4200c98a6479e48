"""An encoder as data: read from its graph, folded, reordered and run."""
