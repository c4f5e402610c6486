"""Smaller models: of fewer layers, of one layer, of a small configuration."""
