"""Folders that are no whole model of Transformers' by themselves: adapters, sentence encoders, and others by name."""
