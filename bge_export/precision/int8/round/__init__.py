"""Weights on their integers, and layers put together of them."""
