"""Tensors in nests, and figures of one tensor."""
