"""Token states to answers, in numpy, for artifacts alone: the oracle has arithmetic of its own."""
