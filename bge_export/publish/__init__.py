"""Publishing: the model card of a bundle on the Hub."""
