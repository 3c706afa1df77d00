"""Optimisers and the learning rates of layers."""
