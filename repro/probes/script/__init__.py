"""The same questions for a user's script."""
