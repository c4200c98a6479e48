"""Whether a folder fits a client or a host: seen from its graphs, names, JSON keys and card, measured for hosts."""
