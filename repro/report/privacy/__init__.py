"""What must not be in a document that is shared."""
