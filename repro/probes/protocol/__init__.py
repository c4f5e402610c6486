"""Events out, exceptions in words."""
