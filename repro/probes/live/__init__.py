"""The same questions in the user's own process: of a module in memory, and of whatever code runs."""
