"""Checks whether a folder works in a client or on a host: by graphs, names, JSON keys and card; hosts by measuring."""
