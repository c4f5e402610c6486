"""The same questions for anything that can be run again: who makes it bad, and by which mechanism."""
