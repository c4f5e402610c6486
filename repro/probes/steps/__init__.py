"""One module for each step, and the registry that lists them."""
