"""Which variant is written: variants in their order, tried on probes."""
