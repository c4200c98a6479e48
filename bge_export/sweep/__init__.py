"""Token ids that no text need hold: a plan that covers what a model can be fed, and the checkpoint's states of it."""
