"""Trainable networks as plain pytrees of arrays, with the parametrisations and starts of the studies."""
