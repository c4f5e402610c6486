"""Files on disk, read without a model."""
